"""Zonotopes sent forwards, against rational arithmetic and against dense matrices."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from local_regions import random_samples, rational_points, served
from rational_evaluation import margins, rational, values

from lipcert.network.builder import Builder
from lipcert.network.enclosure import Enclosure
from lipcert.network.linear import dense_matrix
from lipcert.network.operators import AvgPool, Concat, Conv, Dense, Elementwise, Reshape, Scale, Sum
from lipcert.proof.local import NOTHING, Evaluator, Region, zonotope
from lipcert.proof.local.boxes import Steps
from lipcert.proof.local.columns import Columns
from lipcert.proof.local.zonotope import Zonotope, Zonotopes
from lipcert.testing.build import RELU, conv, dense, exact, matrices

SERVED = served()
NORMS = ("l1", "l2", "linf")


def _boxes(evaluator, region):
    """Those of `Evaluator.crown`."""
    return evaluator._narrowed_boxes(evaluator._around(region, NOTHING), NOTHING)[0]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", SERVED)
def test_nodes_keep_to_their_boxes(name, norm):
    evaluator = SERVED[name]
    network = evaluator.steps.network
    x, _, rng = random_samples(network, 5)
    for eps in (2.0**-60, 0.125):
        region = Region.around(x, eps, norm)
        known = _boxes(evaluator, region)
        for b in range(len(x)):
            one = slice(b, b + 1)
            grown = Zonotope(evaluator.steps, region.take(one), b, known)
            boxes = [grown.box(index) for index in range(len(network.nodes))]
            for point in rational_points(x[one], eps, rng, count=3, norm=norm):
                for sign in (0, 1, -1):
                    for box, true in zip(boxes, values(network, point, sign), strict=True):
                        if box is not None and np.isfinite(box).all():
                            assert (rational(box[0]) <= true).all() and (true <= rational(box[1])).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", SERVED)
def test_margins_hold_with_and_without_functions_sent_back(name, norm, monkeypatch):
    evaluator = SERVED[name]
    monkeypatch.setattr(zonotope, "WORTH", np.inf)
    monkeypatch.setitem(evaluator.steps.costs.__dict__, "looks", True)
    network = evaluator.steps.network
    x, labels, rng = random_samples(network, 6)
    for eps in (2.0**-60, 0.125):
        region = Region.around(x, eps, norm)
        found = [rule(region, labels) for rule in (evaluator.zonotope, evaluator.crown)]
        for point in rational_points(x, eps, rng, count=3, norm=norm):
            true = margins(network, point, labels, 0)
            for bounds in found:
                rest = np.isfinite(bounds)
                assert (rational(bounds[rest]) <= true[rest]).all()


def test_functions_are_sent_back_from_what_a_zonotope_leaves_open(monkeypatch):
    """That there is no difference in what is proved would not show that both were at work."""
    builder, last, sent = Builder((1, 8, 8)), 0, list[int]()
    for depth in range(3):
        layer = conv(depth, (4, 4 if depth else 1, 3, 3), padding=((1, 1), (1, 1)))
        last = builder.add(RELU, builder.add(layer, last))
    builder.add(dense(matrices(0, 256, 3)[0]), builder.add(Reshape(), last, shape=(256,)))
    evaluator, x = Evaluator(builder.build()), np.random.default_rng(1).normal(size=(2, 1, 8, 8))
    labels = np.zeros(2, dtype=np.int64)
    original = Columns.bounds
    monkeypatch.setattr(
        Columns, "bounds", lambda self, index, rows: sent.append(len(rows)) or original(self, index, rows)
    )
    monkeypatch.setattr(zonotope, "WORTH", np.inf)
    region, counts = Region.around(x, 2.0**-2), []
    for looks in (False, True):
        monkeypatch.setitem(evaluator.steps.costs.__dict__, "looks", looks)
        sent.clear()
        evaluator.crown(region, labels)
        counts.append(sum(sent))
    assert 0 < counts[1] < counts[0]


def _cancelling(rng, *shape):
    weight = rng.normal(size=shape) * 2.0 ** rng.integers(-20, 21, size=shape)
    half = shape[1] // 2
    weight[:, half : 2 * half] = -weight[:, :half] * (1.0 + 2.0**-50)
    return weight


def _all_ways(rng, relu):
    """Every way through affine nodes, numbers that cancel almost, and weights that are not known exactly."""
    builder = Builder((2, 4, 4))
    one = builder.add(
        Conv(exact(_cancelling(rng, 4, 2, 3, 3)), exact(rng.normal(size=(4, 1, 1))), (1, 1), ((1, 1),) * 2, (1, 1)), 0
    )
    if relu:
        one = builder.add(Elementwise("relu"), one)
    two = builder.add(
        Conv(exact(_cancelling(rng, 4, 4, 2, 2)), exact(rng.normal(size=(4, 1, 1))), (1, 1), ((0, 1),) * 2, (1, 1)), one
    )
    total = builder.add(Sum((1, -1)), two, one)
    half = builder.add(
        Conv(exact(_cancelling(rng, 2, 4, 3, 3)), exact(np.zeros((2, 1, 1))), (1, 1), ((1, 1),) * 2, (1, 1)), total
    )
    beside = builder.add(Concat(0), total, half, 0)
    scaled = builder.add(Scale(exact(rng.normal(size=(8, 1, 1))), exact(rng.normal(size=(8, 1, 1)))), beside)
    pooled = builder.add(AvgPool((2, 2), (2, 2), ((0, 0), (0, 0)), np.full((2, 2), 4.0)), scaled)
    flat = builder.add(Reshape(), pooled, shape=(32,))
    weight = _cancelling(rng, 5, 32)
    builder.add(Dense(Enclosure(weight, np.abs(weight) * 2.0**-40), exact(rng.normal(size=5))), flat)
    return builder.build()


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_rounding_and_uncertain_weights_are_counted(seed, relu):
    rng = np.random.default_rng(seed)
    network = _all_ways(rng, relu)
    evaluator, x = Evaluator(network), rng.normal(size=(1, 2, 4, 4))
    for eps in (2.0**-200, 1.0):
        region = Region.around(x, eps, "linf")
        grown = Zonotope(evaluator.steps, region, 0, _boxes(evaluator, region))
        for index in range(len(network.nodes)):
            low, high = grown.box(index)
            for point in rational_points(x, eps, rng, count=2, norm="linf"):
                for sign in (0, 1, -1):
                    true = values(network, point, sign)[index]
                    assert (rational(low) <= true).all() and (true <= rational(high)).all()


@pytest.mark.parametrize("seed", range(3))
def test_corners_where_an_entry_is_largest_are_inside(seed):
    """Without activations boxes have no room but for what is lost: of coefficients that cancel, and of weights."""
    rng = np.random.default_rng(seed)
    network = _all_ways(rng, relu=False)
    evaluator, x, eps = Evaluator(network), rng.normal(size=(1, 2, 4, 4)), 0.5
    region = Region.around(x, eps, "linf")
    grown = Zonotope(evaluator.steps, region, 0, _boxes(evaluator, region))
    units = rational(np.concatenate([np.zeros((1, 32)), np.eye(32)]).reshape(33, 2, 4, 4))
    at_units = values(network, units)
    for index in (2, 4, len(network.nodes) - 1):
        low, high = (rational(end.reshape(-1)) for end in grown.box(index))
        rows = (at_units[index][1:] - at_units[index][:1]).reshape(32, -1).T
        for sign in (1, -1, 0):
            corners = rational(x) + Fraction(eps) * rational(np.sign(rows.astype(float))).reshape(-1, 2, 4, 4)
            true = values(network, corners, sign)[index].reshape(len(rows), -1)
            assert (np.diagonal(true) <= high).all() and (true >= low).all()


def test_coefficients_that_cancel_are_not_trusted():
    """A second layer that vanishes on the image of the first but for rounding: its computed product is noise."""
    rng = np.random.default_rng(0)
    first = rng.normal(size=(12, 5))
    second = np.linalg.svd(first)[0][:, 5:].T
    builder = Builder((5,))
    builder.add(Dense(exact(first), exact(np.zeros(12))), 0)
    builder.add(Dense(exact(second), exact(np.zeros(len(second)))), 1)
    region = Region.around(np.zeros((1, 5)), 1.0, "linf")
    _, high = Zonotope(Steps(builder.build()), region, 0, []).box(2)
    largest = np.abs(rational(second) @ rational(first)).sum(axis=1)
    computed = np.abs(second @ first).sum(axis=1)
    assert (rational(computed) < largest).any() and (largest <= rational(high[0])).all()


@pytest.mark.parametrize("second", ["layer", "slope"])
def test_coefficients_that_underflow_are_counted(second):
    """Two thousand coefficients that vanish when they are multiplied."""
    tiny, builder = 2.0**-536, Builder((2000,))
    builder.add(Dense(exact(np.full((1, 2000), 1.25 * 2.0**-540)), exact(np.zeros(1))), 0)
    layer = Dense(exact(np.full((1, 1), tiny)), exact(np.zeros(1)))
    builder.add(layer if second == "layer" else Elementwise("leaky_relu", (np.array(tiny),)), 1)
    builder.add(Dense(exact(np.ones((1, 1))), exact(np.zeros(1))), 2)
    region = Region.around(np.zeros((1, 2000)), 2.0**80, "linf")
    negative = (
        np.full((1, 1), -(2.0**-500)),
        np.full((1, 1), -tiny),
    )  # not what the box is: that the slope is the same all over
    low, _ = Zonotope(Steps(builder.build()), region, 0, [region.ends, negative]).box(3)
    assert Fraction(float(low[0, 0])) <= -2000 * Fraction(1.25) * Fraction(2) ** -996


@pytest.mark.parametrize("norm", NORMS)
def test_boxes_behind_affine_nodes_are_those_of_the_matrix(norm):
    rng = np.random.default_rng(3)
    builder, last, matrix = Builder((2, 9, 8)), 0, np.eye(144)
    for stride in ((1, 1), (2, 1), (1, 2)):
        before = builder.build().nodes[-1].shape if last else (2, 9, 8)
        weight = rng.normal(size=(2, 2, 3, 3))
        last = builder.add(Conv(exact(weight), exact(np.zeros((2, 1, 1))), stride, ((1, 1),) * 2, (1, 1)), last)
        node = builder.build().nodes[-1]
        matrix = dense_matrix(node.op, before, node.shape) @ matrix
    network, x = builder.build(), rng.normal(size=(1, 2, 9, 8))
    low, high = Zonotope(Steps(network), Region.around(x, 0.5, norm), 0, []).box(last)
    dual = np.abs(matrix).sum(axis=1) if norm == "linf" else np.sqrt(np.square(matrix).sum(axis=1))
    middle = matrix @ x.reshape(-1)
    assert np.allclose(high.reshape(-1), middle + 0.5 * dual, rtol=1e-10, atol=1e-10)
    assert np.allclose(low.reshape(-1), middle - 0.5 * dual, rtol=1e-10, atol=1e-10)


def test_a_zonotope_that_would_not_fit_says_nothing(monkeypatch):
    monkeypatch.setattr(zonotope, "MOST", 200)
    rng = np.random.default_rng(1)
    evaluator, x = Evaluator(_all_ways(rng, relu=True)), rng.normal(size=(1, 2, 4, 4))
    region = Region.around(x, 0.1)
    boxes = _boxes(evaluator, region)
    grown, last = Zonotope(evaluator.steps, region, 0, boxes), len(boxes) - 1
    assert grown.box(0) is not None and grown.box(last) is None
    seen = Zonotopes(evaluator.steps, lambda b: region, boxes)
    for found, known in zip(seen.narrowed(last, boxes[last], np.array([True])), boxes[last], strict=True):
        np.testing.assert_array_equal(found, known)
