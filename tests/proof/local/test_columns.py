"""Functions sent back as columns, against dense matrices, rational numbers and functions with their own account."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from local_regions import rational_points
from rational_evaluation import rational, values
from strategies import random_network

from lipcert.network.builder import Builder
from lipcert.network.enclosure import Enclosure
from lipcert.network.linear import dense_matrix
from lipcert.network.operators import AvgPool, Concat, Conv, Dense, Reshape, Scale, Sum
from lipcert.proof.local import Evaluator, Region, narrowing
from lipcert.proof.local.backward import relax
from lipcert.proof.local.boxes import Steps, propagate
from lipcert.proof.local.images import by_neighbourhood, laid_out
from lipcert.proof.local.least import Least, charge
from lipcert.proof.local.narrowing import Narrowing
from lipcert.proof.local.sliding import pull_affine, push_affine
from lipcert.proof.local.windows import Windows
from lipcert.proof.refusal import Refused
from lipcert.testing.build import exact

SEEDS = range(6)
FLOAT64 = np.dtype(np.float64)
WAYS = {"beforehand": np.inf, "on the way": 0.0}


def _whole_numbers(rng, *shape):
    """Numbers whose products and sums are exact in every order."""
    return rng.integers(-9, 10, size=shape).astype(np.float64)


def _convolution(rng, *, stride, padding, kernel=(3, 2), groups=1, circular=False):
    weight = _whole_numbers(rng, 4, 2 // groups, *kernel)
    return Conv(exact(weight), exact(np.zeros((4, 1, 1))), stride, padding, (1, 1), groups, circular)


AFFINE = {
    "convolution": lambda rng: _convolution(rng, stride=(1, 1), padding=((1, 1), (0, 1))),
    "strides": lambda rng: _convolution(rng, stride=(2, 3), padding=((0, 2), (1, 0))),
    "windows of padding only": lambda rng: _convolution(rng, stride=(1, 2), padding=((4, 5), (3, 4))),
    "cropped": lambda rng: _convolution(rng, stride=(1, 1), padding=((-1, -2), (0, -1))),
    "groups": lambda rng: _convolution(rng, stride=(1, 1), padding=((1, 1), (1, 1)), groups=2),
    "circular": lambda rng: _convolution(rng, stride=(1, 1), padding=((1, 1), (1, 1)), circular=True),
    "pool": lambda rng: AvgPool((2, 2), (2, 1), ((0, 0), (0, 1)), np.full((3, 5), 4.0)),
    "scale": lambda rng: Scale(exact(_whole_numbers(rng, 2, 1, 1)), exact(np.zeros((2, 1, 1)))),
    "reshape": lambda rng: Reshape(),
}


def _affine(kind):
    """A node of some kind, prepared, its matrix, and numbers for more."""
    rng = np.random.default_rng(1)
    builder = Builder((2, 7, 5))
    builder.add(AFFINE[kind](rng), 0, shape=(5, 14) if kind == "reshape" else None)
    network = builder.build()
    step, (source, target) = Steps(network).affine[1], (node.shape for node in network.nodes)
    return step, dense_matrix(network.nodes[1].op, source, target), rng


def _layouts(rows, shape):
    """Entries in one rectangle, in windows of their own, and in the image."""
    yield from (Windows.near(rows, shape, FLOAT64, growth) for growth in (np.inf, 0.0))
    alone = Windows.of_entries(rows, np.ones(len(rows)), shape, FLOAT64)
    yield from (alone, alone.made_whole())


@pytest.mark.parametrize("kind", AFFINE)
def test_functions_are_sent_back_as_by_the_matrix(kind):
    step, matrix, rng = _affine(kind)
    for count in (1, 5, len(matrix)):
        rows = rng.permutation(len(matrix))[:count]
        for windows in _layouts(rows, step.target):
            np.testing.assert_array_equal(pull_affine(step, windows).full(), matrix[rows].T)
            np.testing.assert_array_equal(pull_affine(step, windows.both_signs()).full()[:, count:], -matrix[rows].T)
    functions = _whole_numbers(rng, len(matrix), 3)
    np.testing.assert_array_equal(pull_affine(step, Windows.whole(functions, step.target)).full(), matrix.T @ functions)


@pytest.mark.parametrize("kind", AFFINE)
def test_symbols_are_sent_forwards_as_by_the_matrix(kind):
    step, matrix, rng = _affine(kind)
    for count in (1, 5, matrix.shape[1]):
        rows, sizes = rng.permutation(matrix.shape[1])[:count], _whole_numbers(rng, count)
        alone = Windows.of_entries(rows, sizes, step.source, FLOAT64)
        for windows in (alone, alone.made_whole()):
            np.testing.assert_array_equal(push_affine(step, windows).full(), matrix[:, rows] * sizes)


def test_convolutions_follow_each_other_both_ways():
    """Windows that are partly outside, then are widened again: nothing from outside may come back."""
    rng = np.random.default_rng(4)
    builder = Builder((2, 7, 5))
    last = 0
    for _ in range(3):
        weight = _whole_numbers(rng, 2, 2, 3, 3)
        last = builder.add(Conv(exact(weight), exact(np.zeros((2, 1, 1))), (1, 1), ((1, 1), (2, 1)), (1, 1)), last)
    network = builder.build()
    steps, matrix = Steps(network), np.eye(70)
    alone = Windows.of_entries(np.arange(70), np.ones(70), (2, 7, 5), FLOAT64)
    for index, node in enumerate(network.nodes[1:], start=1):
        matrix = dense_matrix(node.op, network.nodes[index - 1].shape, node.shape) @ matrix
        alone = push_affine(steps.affine[index], alone)
        np.testing.assert_array_equal(alone.full(), matrix)
    for windows in _layouts(np.arange(network.nodes[-1].size)[::3], network.nodes[-1].shape):
        back = windows
        for index in range(len(network.nodes) - 1, 0, -1):
            back = pull_affine(steps.affine[index], back)
        np.testing.assert_array_equal(back.full(), matrix[::3].T)


def _scattered(rng, h, w, shape, outside):
    """Windows in places of their own, some of them partly outside the image, where they are zero."""
    at = rng.integers(-outside, shape[1] - h + outside + 1, 4), rng.integers(-outside, shape[2] - w + outside + 1, 4)
    found = Windows(_whole_numbers(rng, h, w, shape[0], 4), at, shape).inside()
    assert not found.is_shared
    return found


def test_windows_in_different_places_are_added_up():
    rng, shape = np.random.default_rng(2), (3, 6, 7)
    corners = ((1, 0, 2, 3), (3, 2, 3, 5), (1, 0, 2, 3))
    parts = [Windows(_whole_numbers(rng, h, w, 3, 4), (np.array([y]), np.array([x])), shape) for y, x, h, w in corners]
    parts += [_scattered(rng, h, w, shape, outside) for h, w, outside in ((2, 3, 0), (4, 2, 1), (1, 5, 2))]
    image, mask = _whole_numbers(rng, 3 * 6 * 7), rng.random((6, 7, 3)) < 0.3
    for one in parts:
        for two in parts:
            np.testing.assert_array_equal(one.plus(two).full(), one.full() + two.full())
        np.testing.assert_array_equal(one.dot(laid_out(image, shape)), image @ one.full())
        np.testing.assert_array_equal(one.times(laid_out(image, shape)).full(), image[:, None] * one.full())
        for squared, sums in ((True, np.square(one.full())), (False, np.abs(one.full()))):
            np.testing.assert_array_equal(one.added(squared), laid_out(sums.sum(axis=1), shape))
        if not one.is_shared:
            inner, outer = one.shown(mask)
            values = one.values.reshape(-1)[inner]
            assert np.all(mask.reshape(-1)[outer]) and np.all(values != 0)
            there = laid_out(np.arange(126), shape).reshape(-1)[outer]
            np.testing.assert_array_equal(one.full()[there, inner % 4], values)
            assert len(inner) == np.count_nonzero(one.full()[laid_out(np.arange(126), shape)[mask]])


def test_every_entry_is_ordered_once():
    rows = np.random.default_rng(3).permutation(3 * 6 * 7)[:50]
    order = by_neighbourhood(rows, (3, 6, 7), 2)
    assert sorted(rows[order]) == sorted(rows) and len(set(order)) == 50


def _wild(rng, *shape):
    return rng.normal(size=shape) * 2.0 ** rng.integers(-20, 21, size=shape)


def _cancelling(rng, *shape):
    """Weights whose sums cancel almost: what rounding does is all that is left."""
    weight = _wild(rng, *shape)
    half = shape[1] // 2
    weight[:, half : 2 * half] = -weight[:, :half] * (1.0 + 2.0**-50)
    return weight


def _linear_network(rng):
    """All ways through affine nodes, without activations: the least values are known exactly."""
    builder = Builder((2, 4, 4))
    one = builder.add(
        Conv(exact(_cancelling(rng, 4, 2, 3, 3)), exact(_wild(rng, 4, 1, 1)), (1, 1), ((1, 1),) * 2, (1, 1)), 0
    )
    two = builder.add(
        Conv(exact(_cancelling(rng, 4, 4, 2, 2)), exact(_wild(rng, 4, 1, 1)), (1, 1), ((0, 1),) * 2, (1, 1)), one
    )
    total = builder.add(Sum((1, -1)), two, one)
    beside = builder.add(Concat(0), total, 0)
    scaled = builder.add(Scale(exact(_wild(rng, 6, 1, 1)), exact(_wild(rng, 6, 1, 1))), beside)
    pooled = builder.add(AvgPool((2, 2), (2, 2), ((0, 0), (0, 0)), np.full((2, 2), 4.0)), scaled)
    flat = builder.add(Reshape(), pooled, shape=(24,))
    spread = np.abs(_cancelling(rng, 5, 24)) * 2.0**-40
    builder.add(Dense(Enclosure(_cancelling(rng, 5, 24), spread), exact(_wild(rng, 5))), flat)
    return builder.build()


def _grown(steps, region):
    boxes = [region.ends]
    for index in range(1, len(steps.nodes)):
        boxes.append(propagate(steps, index, [boxes[i] for i in steps.nodes[index].inputs]))
    return boxes


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", SEEDS)
def test_bounds_hold_where_rounding_is_all_there_is(seed, way, monkeypatch):
    monkeypatch.setattr(narrowing, "_MATTERS", WAYS[way])
    rng = np.random.default_rng(seed)
    network = _linear_network(rng)
    steps, x = Steps(network), _wild(rng, 1, 2, 4, 4)
    region = Region.around(x, 2.0**-200, "linf")
    boxes = _grown(steps, region)
    narrower = Narrowing(steps, region, boxes, {})
    while len(narrower._drift.found) < len(steps.nodes):
        narrower._drift.grow(boxes, None)
    true = values(network, rational(x))
    for index in range(1, len(steps.nodes)):
        rows = np.arange(steps.nodes[index].size)
        low, high = narrower._bounds(0, index, rows, np.ones(len(rows)))
        for least, most, value, size in zip(
            low, high, true[index].reshape(-1), narrower._drift.found[index][0], strict=True
        ):
            assert Fraction(least) <= value <= Fraction(most)
            assert most - least <= 16.0 * float(size)


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
@pytest.mark.parametrize("box", [None, (-1.0, 2.0)])
@pytest.mark.parametrize("way", WAYS)
def test_bounds_of_all_nodes_hold_at_all_points(norm, box, way, monkeypatch):
    monkeypatch.setattr(narrowing, "_MATTERS", WAYS[way])
    tried = 0
    for seed in range(40):
        network, rng = random_network(seed, 4), np.random.default_rng(seed)
        try:
            steps = Evaluator(network).steps
        except Refused:
            continue
        x, eps = rng.uniform(-0.9, 1.9, size=(1, *steps.network.input_shape)), (2.0**-60, 0.1)[seed % 2]
        region = Region.around(x, eps, norm, box)
        boxes, lines = _grown(steps, region), {}
        for index in range(1, len(steps.nodes)):
            relaxation = relax(steps, index, boxes)
            if relaxation is not None:
                lines[index] = relaxation
        narrower = Narrowing(steps, region, boxes, lines)
        while len(narrower._drift.found) < len(steps.nodes):
            narrower._drift.grow(boxes, lines.get(len(narrower._drift.found)))
        points = rational_points(x, eps, rng, 2, norm, box)
        at = [values(steps.network, point, sign) for point in points for sign in (0, 1, -1)]
        for index in range(1, len(steps.nodes)):
            low, high = narrower._bounds(0, index, np.arange(steps.nodes[index].size), np.ones(steps.nodes[index].size))
            for found in at:
                known = np.isfinite(low) & np.isfinite(high)
                true = found[index].reshape(-1)[known]
                assert (rational(low[known]) <= true).all() and (true <= rational(high[known])).all()
        tried += 1
    assert tried > 20


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("norm", ["l1", "linf"])
def test_the_least_value_on_a_ball_that_a_box_cuts(seed, norm):
    rng = np.random.default_rng(seed)
    x, eps = np.abs(rng.normal(size=(1, 2, 2, 2))) % 1.0, 0.25
    c = _cancelling(rng, 8, 5)
    region = Region.around(x, eps, norm, (0.0, 1.0))
    found = Least(region).of(Windows.whole(c, (2, 2, 2)))
    lost = [sum(map(Fraction, row)) for row in (np.abs(c) * charge(region, 0)[0][:, None]).T]
    for column, value, room in zip(c.T, found, lost, strict=True):
        for point in rational_points(x, eps, rng, 6, norm, (0.0, 1.0)):
            true = sum(Fraction(a) * b for a, b in zip(column, point.reshape(-1), strict=True))
            assert Fraction(value) - room <= true


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("eps", [2.0**-40, 0.3, 3.0])
def test_the_least_value_on_a_ball_and_a_box_together(seed, eps):
    rng = np.random.default_rng(seed)
    x, c = np.round(rng.uniform(size=(1, 3, 2, 2)), 1), rng.normal(size=(12, 6))
    x.reshape(-1)[rng.integers(0, 12, 4)] = 0.0
    region = Region.around(x, eps, "l2", (0.0, 1.0))
    found, lost = Least(region).of(Windows.whole(c, (3, 2, 2))), np.abs(c.T) @ charge(region, 0)[0]
    for column, value, room in zip(c.T, found, lost, strict=True):
        best = _at_the_best_place(column, x.reshape(-1), eps)
        assert Fraction(value) - Fraction(room) <= best
        assert float(best) - value <= 0.03 * eps * np.linalg.norm(column)  # t is not followed to the end


def _at_the_best_place(c, x, eps):
    """The value of a linear function at a point of ball and box where it is nearly least; exact."""
    low, high = -200.0, 60.0
    for _ in range(60):
        t = (low + high) / 2
        inside = np.linalg.norm(np.clip(x - 2.0**t * c, 0.0, 1.0) - x) <= eps * (1.0 - 1e-3)
        low, high = (t, high) if inside else (low, t)
    point = np.clip(rational(x) - Fraction(2.0**low) * rational(c), Fraction(0), Fraction(1))
    assert sum(s * s for s in point - rational(x)) <= Fraction(eps) ** 2
    return sum(a * b for a, b in zip(rational(c), point, strict=True))


def test_functions_with_their_own_account_say_the_same(monkeypatch):
    for seed in range(30):
        network, rng = random_network(seed, 5), np.random.default_rng(seed)
        try:
            evaluator = Evaluator(network)
        except Refused:
            continue
        if evaluator.steps.nodes[-1].size < 2:
            continue
        region = Region.around(rng.normal(size=(3, *network.input_shape)), 0.05, "l2")
        found, labels = [], np.zeros(3, dtype=np.int64)
        for way in WAYS.values():
            monkeypatch.setattr(narrowing, "_MATTERS", way)
            found.append(evaluator.crown(region, labels)[:, 1:])
            alone = [evaluator.crown(region.take(slice(b, b + 1)), labels[:1])[0, 1:] for b in range(3)]
            np.testing.assert_allclose(found[-1], alone, rtol=1e-12)
        np.testing.assert_allclose(*found, rtol=1e-7, atol=1e-7 * np.abs(found[0]).max())
