"""Margins from norms without constant neurons at level verified: against rational arithmetic, whatever is proposed."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_regions import assert_below_margins, evaluator_of, random_samples, rational_points, served
from rational_evaluation import margins, rational, values
from strategies import networks

from benchmarks.networks import open_network
from lipcert.bounds.local.certify import certify_samples
from lipcert.bounds.local.registry import find_local
from lipcert.bounds.local.view import View
from lipcert.network import Builder
from lipcert.network.linear import dense_matrix
from lipcert.network.operators import Dense, Elementwise
from lipcert.proof.local import NOTHING, Evaluator, Proposal, Region, Samples, masked_norms, pruned
from lipcert.proof.local.affine import AffineStep
from lipcert.proof.local.choices import positions, winners
from lipcert.proof.local.masked_norms import layer_norms, masked_norm, matrix_norm
from lipcert.proof.local.pruned import Pruned
from lipcert.proof.local.region import least_on_ellipsoid
from lipcert.proof.refusal import Refused
from lipcert.testing.build import RELU, chain, conv, exact, matrices, mlp
from lipcert.testing.zoo import zoo

AFFINE = ("dense", "conv", "conv_transpose", "avg_pool", "scale", "gather")


SERVED = served()


# --- norms ------------------------------------------------------------------------------------------------------


def _weights(rng, *shape):
    return rng.choice([0.0, 1.0, rng.uniform(), 1e-200], size=shape, p=[0.4, 0.4, 0.15, 0.05])


def _quotients(node, source, left, right, rng):
    """Squares of |L^(1/2) A R^(1/2) x| / |x|, Fractions: y = R^(1/2) x is drawn, along the largest singular vectors."""
    network = chain(source, node.op)
    linear = [values(network, np.eye(int(np.prod(source))).reshape(-1, *source), sign)[1] for sign in (0, 1, -1)]
    constant = [values(network, np.zeros((1, *source)), sign)[1] for sign in (0, 1, -1)]
    for a, b in zip(linear, constant, strict=True):
        a = (a - b).reshape(len(a), -1).T
        dense = np.sqrt(left)[:, None] * a.astype(np.float64) * np.sqrt(right)
        top = np.linalg.svd(dense)[2][0] if dense.size else np.zeros(len(right))
        for x in (top, rng.normal(size=len(right)), rng.choice([-1.0, 1.0], len(right))):
            y = rational(np.sqrt(right) * x)
            alive = right > 0
            size = sum((y[alive] ** 2 / rational(right[alive])), Fraction(0))
            if size > 0:
                yield sum(rational(left) * a.dot(y) ** 2, Fraction(0)) / size


@pytest.mark.parametrize("small", [0, 512])
@settings(max_examples=20, deadline=None)
@given(networks(AFFINE, max_depth=2), st.integers(0, 2**16))
def test_masked_norms_are_above_every_quotient(small, network, seed):
    rng = np.random.default_rng(seed)
    before, masked_norms.SMALL = masked_norms.SMALL, small  # 0: the bounds that serve large layers, alone
    norms = View(network).norms
    try:
        for index, node in Evaluator(network).steps.network.affine_nodes():
            source = Evaluator(network).steps.nodes[node.inputs[0]].shape
            step = AffineStep(node, source)
            left, right = _weights(rng, 2, *node.shape), _weights(rng, 2, *source)
            for norm in (np.inf, norms.get(index, np.inf)):
                found = masked_norm(step, left, right, norm)
                for b in range(2):
                    for quotient in _quotients(node, source, left[b].ravel(), right[b].ravel(), rng):
                        assert Fraction(float(found[b])) ** 2 >= quotient
    finally:
        masked_norms.SMALL = before


@pytest.mark.parametrize("circular", [False, True])
@pytest.mark.parametrize("padding", [((1, 1), (0, 2)), ((0, 0), (0, 0))])
def test_what_weights_leave_of_a_convolution_has_nearly_its_own_norm(circular, padding):
    rng, shape = np.random.default_rng(0), (2, 7, 6)
    op = conv(0, (4, 1, 3, 2), stride=2, padding=padding, dilation=2, groups=2, circular=circular)
    node = chain(shape, op).nodes[1]
    step, dense = AffineStep(node, shape), dense_matrix(op, shape, node.shape)
    assert (step.entries.at(np.arange(node.size), np.arange(84)) == dense).all()
    left, right = _weights(rng, 3, *node.shape), _weights(rng, 3, *shape)
    found = masked_norm(step, left, right, np.inf)
    true = [
        np.linalg.norm(np.sqrt(a.reshape(-1, 1)) * dense * np.sqrt(b.ravel()), 2)
        for a, b in zip(left, right, strict=True)
    ]
    assert (found >= true).all() and (found <= np.array(true) * (1.0 + 1e-8)).all()


def test_a_kernel_that_wraps_onto_itself_is_summed_before_it_is_squared():
    op = conv(0, (1, 1, 5), padding=((2, 2),), circular=True)
    node = chain((1, 3), op).nodes[1]
    step, dense = AffineStep(node, (1, 3)), np.abs(dense_matrix(op, (1, 3), node.shape))
    assert step.entries.at(np.arange(3), np.arange(3)) is None
    assert (step.squared(np.ones((1, 1, 3)))[0].ravel() >= np.square(dense).sum(axis=1)).all()
    assert masked_norm(step, np.ones((1, *node.shape)), np.ones((1, 1, 3)), np.inf)[0] >= np.linalg.norm(dense, 2)


def test_norms_of_nothing_and_of_what_is_no_number():
    step = AffineStep(chain((3,), Dense(exact(np.ones((2, 3))), exact(np.zeros(2)))).nodes[1], (3,))
    zero, one = np.zeros((1, 2)), np.ones((1, 3))
    assert masked_norm(step, zero, one, np.inf)[0] == 0.0 == masked_norm(step, zero, one * np.inf, np.nan)[0]
    assert np.isinf(masked_norm(step, np.array([[1.0, np.nan]]), one, 1.0)[0])
    assert np.isinf(masked_norm(step, np.ones((1, 2)), one * np.inf, np.inf)[0])
    for broken in (np.nan, np.inf):
        assert np.isinf(matrix_norm(np.array([[1.0, broken]])))
    assert matrix_norm(np.zeros((2, 2))) < 1e-150
    for scale in (1e-250, 1e300):
        assert scale * np.sqrt(3.0) <= matrix_norm(np.full((1, 3), scale)) <= scale * np.sqrt(3.0) * (1 + 1e-8)


def test_only_norms_that_are_proved_count():
    network = mlp(matrices(0, 3, 5, 2))
    steps, norms = Evaluator(network).steps, View(network).norms
    assert layer_norms(steps, norms) == norms
    assert layer_norms(steps, {k: v * 0.99 for k, v in norms.items()} | {99: 1.0}) == {}
    assert layer_norms(steps, dict.fromkeys(norms, np.nan)) == {}


@pytest.mark.parametrize("seed", range(20))
def test_an_ellipsoid_and_a_box_together(seed):
    rng = np.random.default_rng(seed)
    c, scale = rng.normal(size=(2, 3, 5)), _weights(rng, 2, 5)
    low, high = -np.abs(rng.normal(size=(2, 5))) * (scale > 0), np.abs(rng.normal(size=(2, 5))) * (scale > 0)
    eps = rng.uniform(0.1, 2.0, (2, 1))
    found = least_on_ellipsoid(c, low, high, eps, scale)
    alone = -eps * np.linalg.norm(c * scale[:, None], axis=2), -np.maximum(-c * low[:, None], -c * high[:, None]).sum(2)
    assert (found >= np.maximum(*alone) - 1e-12).all()
    for _ in range(30):
        e = rng.normal(size=(2, 5)) if rng.random() < 0.5 else -(c[:, rng.integers(3)] * scale)
        e = e / np.maximum(np.linalg.norm(e, axis=1, keepdims=True), 1e-9) * eps * (1 - 1e-12)
        d = np.clip(e * scale, low, high)  # towards zero, so that it stays on the ellipsoid
        for b in range(2):
            assert (rational(found[b]) <= rational(c[b]).dot(rational(d[b]))).all()


# --- choices ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_every_place_that_is_taken_is_allowed(seed):
    rng = np.random.default_rng(seed)
    low = rng.normal(size=(3, 4))
    high = low + rng.choice([0.0, 0.5, 2.0], size=low.shape)
    allowed, may = positions(low, high), winners(np.array([[0, 1], [2, -1], [3, 0]]), low, high, 1)
    assert may[:, 1, 1].sum() == 0
    for _ in range(200):
        x = rng.uniform(low, high)
        order = np.argsort(x, axis=1)
        assert np.take_along_axis(allowed, order[..., None], axis=1).diagonal(axis1=1, axis2=2).all()
        for b in range(3):
            assert may[b, np.argmax(x[b, [0, 2, 3]]), 0] and may[b, 2 * np.argmax(x[b, [1, 0]]), 1]
    assert not allowed.all()


# --- margins ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SERVED)
def test_no_bound_is_above_a_margin_inside_the_ball(name):
    evaluator, rng = SERVED[name], np.random.default_rng(1)
    network = evaluator.steps.network
    x = rng.normal(size=(3, *network.input_shape))
    labels = values(network, x)[-1].reshape(3, -1).argmax(axis=1).astype(np.int64)
    for eps in (2.0**-40, 0.25):
        found = evaluator.pruned(Region.around(x, eps), labels)
        assert_below_margins(network, labels, found, rational_points(x, eps, rng))


@given(networks(max_depth=5), st.integers(0, 2**16), st.sampled_from([1e-3, 0.1, 1.0]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_random_networks_of_all_operators(network, seed, eps, boxed):
    evaluator = evaluator_of(network)
    if evaluator is None:
        return
    network = evaluator.steps.network
    x, labels, rng = random_samples(network, seed)
    box = (-1.0, 1.0) if boxed else None
    found = evaluator.pruned(Region.around(x, eps, "l2", box), labels, Proposal(norms=View(network).norms))
    assert_below_margins(network, labels, found, rational_points(x, eps, rng, 4, box=box))


@pytest.mark.parametrize("name", ["small ReLU chain", "MaxMin", "clipped MaxMin"])
def test_boxes_and_measures_hold(name):
    network = _clipped(zoo()["MaxMin"]) if name == "clipped MaxMin" else zoo()[name]
    evaluator, rng, eps = Evaluator(network), np.random.default_rng(4), 0.4
    x = rng.normal(size=(2, *network.input_shape))
    around = evaluator._around(Region.around(x, eps), NOTHING)
    found, start = Pruned.of(around, layer_norms(evaluator.steps, View(network).norms)), values(network, x)
    weights = [_weights(rng, 2, *node.shape) for node in evaluator.steps.nodes]
    measures = [found.measures.measure(i, w) for i, w in enumerate(weights)]
    for point in rational_points(x, eps, rng, 20):
        size = ((point - rational(x)) ** 2).reshape(2, -1).sum(axis=1)
        for i, end in enumerate(values(evaluator.steps.network, point)):
            low, high = found.boxes[i]
            assert (rational(low) <= end).all() and (end <= rational(high)).all()
            moved = (rational(weights[i]) * (end - start[i]) ** 2).reshape(2, -1).sum(axis=1)
            assert (moved <= rational(measures[i]) ** 2 * size).all()


def _clipped(network):
    """The network with its outputs clipped to a narrow range."""
    builder = Builder(network.input_shape)
    for node in network.nodes[1:]:
        builder.add(node.op, *node.inputs, shape=node.shape)
    builder.add(Elementwise("clip", (np.array(-0.1), np.array(0.2))), len(network.nodes) - 1)
    return builder.build()


@pytest.mark.parametrize("kind", ["too small", "wild", "nan", "none of the network"])
def test_whatever_is_proposed_what_is_derived_holds(kind):
    network, rng = mlp(matrices(3, 4, 8, 8, 3)), np.random.default_rng(0)
    evaluator, x, labels = Evaluator(network), rng.normal(size=(3, 4)), np.array([0, 1, 2])
    norms = View(network).norms
    change = {"too small": 0.9, "wild": 1e30, "nan": np.nan}.get(kind, 1.0)
    norms = {99: 0.1, -1: 0.1} if kind == "none of the network" else {k: v * change for k, v in norms.items()}
    slopes = {2: (np.full((3, 1, 8), np.nan), np.full((3, 1, 8), 7.0))}
    multipliers = [{2: np.full((3, 8), -1.0)}]
    region = Region.around(x, 0.3)
    found = evaluator.pruned(region, labels, Proposal(slopes, multipliers=multipliers, norms=norms))
    assert (found == evaluator.pruned(region, labels)).all()
    assert_below_margins(network, labels, found, rational_points(x, 0.3, rng))


def test_constant_neurons_do_not_count():
    """A layer of large weights behind neurons that are dead on the ball; the others are linear: the bound is exact."""
    first, second = matrices(11, 3, 4, 2)
    z = np.random.default_rng(0).normal(size=4)
    layers = Dense(exact(first), exact(z)), Dense(exact(second * np.where(z > 0, 1.0, 1e6)), exact(np.zeros(2)))
    network, x = chain((3,), layers[0], RELU, layers[1]), np.zeros((1, 3))
    eps = 0.5 * np.abs(z).min() / np.linalg.norm(first, axis=1).max()
    row = (second[0] - second[1]) * (z > 0)
    exactly = row @ z - eps * np.linalg.norm(row @ first)
    found = Evaluator(network).pruned(Region.around(x, eps), np.array([0]))[0, 1]
    assert exactly - 1e-6 * abs(exactly) <= found <= exactly + 1e-14


def test_unstable_neurons_have_the_norm_of_their_rows():
    """Two layers, all hidden neurons unstable, one output pair: never worse than the product with the rows left."""
    first, second = matrices(11, 3, 4, 2)
    network, x, eps = mlp([first, second]), np.full((1, 3), 1e-3), 5.0
    c = second[0] - second[1]
    product = eps * np.linalg.norm(c) * np.linalg.norm(first, 2)
    found = Evaluator(network).pruned(Region.around(x, eps), np.array([0]))[0, 1]
    assert found >= float(margins(network, x, np.array([0]))[0, 1]) - product * (1 + 1e-6)


def test_outputs_that_are_constant_have_margins_of_the_centre():
    network = _clipped(mlp([np.eye(3), np.diag([1.0, 2.0, -1.0])]))
    x = np.array([[1.0, -1.0, 1.0]])
    found = Evaluator(network).pruned(Region.around(x, 0.25), np.array([0]))
    true = margins(network, x, np.array([0]))[0, 2]
    assert true - Fraction(1, 10**12) <= Fraction(found[0, 2]) <= true


def test_only_l2_balls():
    with pytest.raises(Refused, match="linf"):
        Evaluator(mlp(matrices(0, 3, 4, 3))).pruned(Region.around(np.zeros((1, 3)), 0.1, "linf"), np.array([0]))


def test_samples_that_are_no_numbers_or_outside_the_box_are_not_certified():
    network = mlp([np.eye(2), np.eye(2)])
    x = np.array([[0.9, 0.1], [1.5, 0.1], [np.nan, 0.1], [1e300, 1e300]])
    found = Evaluator(network).pruned(Region.around(x, 0.01, "l2", (0.0, 1.0)), np.zeros(4, dtype=np.int64))
    assert found[0, 1] > 0 and (found[1:, 1] == -np.inf).all()
    huge = Evaluator(mlp([np.eye(2) * 1e200] * 3)).pruned(Region.around(x[:1], 0.01), np.array([0]))
    assert huge[0, 1] == -np.inf


def test_a_bound_does_not_depend_on_the_other_samples():
    """Up to the rounding of other orders of summation; the same balls in the same order count the same."""
    network, rng = mlp(matrices(3, 6, 12, 12, 3)), np.random.default_rng(0)
    evaluator, x, labels = Evaluator(network), rng.normal(size=(6, 6)), rng.integers(0, 3, 6)
    whole = evaluator.pruned(Region.around(x, 0.2), labels)
    for b in range(6):
        alone = evaluator.pruned(Region.around(x[b : b + 1], 0.2), labels[b : b + 1])[0]
        rest = np.isfinite(alone)
        assert np.allclose(alone[rest], whole[b][rest], rtol=1e-9, atol=1e-12)


def test_functions_are_followed_some_at_a_time(monkeypatch):
    network, x = mlp(matrices(3, 6, 12, 12, 5)), np.random.default_rng(0).normal(size=(2, 6))
    evaluator, region, labels = Evaluator(network), Region.around(x, 0.3), np.array([0, 3])
    whole = evaluator.pruned(region, labels)
    monkeypatch.setattr(pruned, "AT_ONCE", 1)
    assert np.allclose(evaluator.pruned(region, labels), whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "method", "eps", "count", "least"),
    [
        ("mnist_fc_3layer", "pruned", 0.1, 100, 91),
        ("mnist_fc_3layer", "pruned-crown", 0.3, 100, 60),
        ("mnist_cnn_small", "pruned", 0.1, 20, 19),
    ],
)
def test_counts_on_real_networks(shared_data, name, method, eps, count, least):
    """Of the first images, above Huang et al.'s own code (91 and 12), whose norms are by power iteration."""
    network, images, labels = open_network(shared_data, f"models/autolirpa/{name}.pth")
    found = certify_samples(network, find_local(method), Samples.of(images[:count], labels[:count]), eps)
    assert found.rows.sum() >= least
