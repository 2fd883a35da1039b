"""Margins by multipliers at level verified: against rational arithmetic, whatever is proposed."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rational_evaluation import margins, rational, values

from benchmarks.networks import open_network
from lipcert.bounds.local.anchored import Anchored as Proposer
from lipcert.bounds.local.certify import certify_samples
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.view import View
from lipcert.network.enclosure import Enclosure
from lipcert.network.operators import Dense, Elementwise
from lipcert.proof.local import NOTHING, Evaluator, Proposal, Region, Samples
from lipcert.proof.local.anchored import Anchor, Narrowing
from lipcert.proof.local.differences import Differences, Rows, spans
from lipcert.proof.local.reach import Noises, Seen, reach
from lipcert.proof.local.secants import anchored_sector
from lipcert.proof.refusal import Refused
from lipcert.testing.build import RELU, chain, exact, matrices, mlp
from lipcert.testing.zoo import zoo

STRAIGHT = {
    "relu": (),
    "leaky_relu": (0.1,),
    "abs": (),
    "clip": (-0.5, 1.0),
    "softshrink": (0.3,),
}


def _served():
    """The networks of the zoo with elementwise activations that the evaluator takes."""
    for name, network in zoo().items():
        if network.nodes[-1].size > 1:
            try:
                evaluator = Evaluator(network)
                evaluator.anchored(
                    Region.around(np.zeros((1, *network.input_shape)), 1.0), np.array([0]), _uniform(evaluator)
                )
            except Refused:
                continue
            yield name, network


def _uniform(evaluator, value=1.0, count=1):
    """One number for all multipliers."""
    steps = evaluator.steps
    shapes = {i: (count, *node.shape) for i, node in enumerate(steps.nodes) if isinstance(node.op, Elementwise)}
    return Proposal(multipliers=[{i: np.full(shape, value) for i, shape in shapes.items()}])


def _proposed(network, x, eps, labels):
    ball = Ball.around(torch.from_numpy(x), eps)
    found = Proposer(6).bound(View(network, dtype=torch.float64), ball, torch.from_numpy(labels))
    return found.proposal(torch.arange(len(x)))


def _points(x, eps, rng, count=6):
    """Points of the l2 balls around x, exactly: centres, and points along an axis or in a direction."""
    points = [rational(x)]
    for k in range(count):
        step = rng.normal(size=(len(x), x[0].size))
        if k % 2:
            step = np.eye(x[0].size)[rng.integers(0, x[0].size, len(x))] * rng.choice([-1.0, 1.0])
        else:
            step = np.round(step / np.linalg.norm(step, axis=1, keepdims=True) * (1 - 1e-9) * 2.0**40) * 2.0**-40
        assert all(sum(Fraction(s) ** 2 for s in row) <= 1 for row in step)
        points.append(rational(x) + Fraction(eps) * rational(step.reshape(x.shape)))
    return points


def _assert_sound(network, x, eps, labels, found, rng):
    rest = np.isfinite(found)
    for point in _points(x, eps, rng):
        for sign in (0, 1, -1):
            assert (rational(found[rest]) <= margins(network, point, labels, sign)[rest]).all()


SERVED = dict(_served())


def test_there_is_something_to_test():
    assert len(SERVED) > 20


@pytest.mark.parametrize("name", SERVED)
def test_no_bound_is_above_a_margin_inside_the_ball(name):
    network, rng = SERVED[name], np.random.default_rng(1)
    evaluator, x = Evaluator(network), rng.normal(size=(3, *network.input_shape))
    labels = values(evaluator.steps.network, x)[-1].reshape(3, -1).argmax(axis=1).astype(np.int64)
    for eps in (2.0**-40, 0.25):
        proposal = _proposed(network, x, eps, labels)
        found = evaluator.anchored(Region.around(x, eps), labels, proposal)
        assert (found >= evaluator.crown(Region.around(x, eps), labels, proposal)).all()
        _assert_sound(evaluator.steps.network, x, eps, labels, found, rng)


@given(st.integers(0, 10**6), st.sampled_from(["uniform", "wild", "negative", "nan", "zero", "huge", "missing"]))
@settings(max_examples=30, deadline=None)
def test_whatever_is_proposed_what_is_derived_holds(seed, kind):
    rng = np.random.default_rng(seed)
    name = sorted(STRAIGHT)[seed % len(STRAIGHT)]
    network = mlp(matrices(seed, 3, 5, 4, 3), Elementwise(name, tuple(np.array(p) for p in STRAIGHT[name])))
    evaluator, x, labels = Evaluator(network), rng.normal(size=(2, 3)), rng.integers(0, 3, 2)
    eps = float(rng.choice([0.01, 0.2, 1.0]))
    proposal = _uniform(evaluator, 3.0, 2)
    for e in proposal.multipliers[0].values():
        with np.errstate(over="ignore"):
            e *= {
                "wild": 10.0 ** rng.normal(scale=3.0, size=e.shape),
                "negative": rng.choice([-1.0, 1.0], e.shape),
            }.get(
                kind,
                {"nan": np.where(rng.random(e.shape) < 0.3, np.nan, 1.0), "zero": 0.0, "huge": 1e300}.get(kind, 1.0),
            )
    if kind == "missing":
        proposal = Proposal(
            multipliers=[{min(proposal.multipliers[0]): proposal.multipliers[0][1 + 1]}, *proposal.multipliers]
        )
    found = evaluator.anchored(Region.around(x, eps), labels, proposal)
    _assert_sound(network, x, eps, labels, found, rng)
    if kind in ("zero", "nan", "huge"):
        assert not np.isnan(found).any()


@pytest.mark.parametrize("seed", range(8))
def test_differences_are_what_their_rows_say(seed):
    """dz = G dx + N w + delta with |delta| <= e and |w| <= r |dz|, in rational numbers."""
    rng = np.random.default_rng(seed)
    weights = [Enclosure(w, np.abs(w) * 2.0**-50) if seed % 2 else exact(w) for w in matrices(seed, 4, 6, 5, 3)]
    layers = [Dense(w, exact(rng.normal(size=w.shape[0]))) for w in weights]
    network = chain((4,), layers[0], RELU, layers[1], Elementwise("leaky_relu", (np.array(0.1),)), layers[2])
    evaluator, x, eps = Evaluator(network), rng.normal(size=(1, 4)), 0.5
    steps, region = evaluator.steps, Region.around(x, eps)
    around = evaluator._around(region, NOTHING)
    boxes, _ = evaluator._narrowed_boxes(around, NOTHING)
    centre = around.centre
    rows = Differences(steps, spans(boxes, centre))
    picks, sectors = {}, {}
    for index, node in network.activation_nodes():
        source = node.inputs[0]
        sectors[index] = anchored_sector(node.op, centre[source], boxes[source])
        picks[index] = np.flatnonzero(sectors[index].radius)
        rows.add(index, sectors[index].middle, picks[index])
    last = rows.of_functions(len(steps.nodes) - 1, np.eye(3)[None])
    for sign in (0, 1, -1):
        start = values(network, x, sign)
        for point in _points(x, eps, rng):
            end, noises = values(network, point, sign), []
            for index, node in network.activation_nodes():
                dz, dv = ((end[i] - start[i])[0] for i in (node.inputs[0], index))
                w = dv - rational(sectors[index].middle[0]) * dz
                assert (abs(w) <= rational(sectors[index].radius[0]) * abs(dz)).all()
                noises.append(w[picks[index]])
            dx, noise = (point - rational(x))[0], np.concatenate(noises)
            said = rational(last.inputs).dot(dx) + rational(last.noise).dot(noise)
            assert (abs((end[-1] - start[-1])[0] - said) <= rational(last.error)).all()
    assert (last.error < 1e-10).all() and (last.error > 0).all()


@pytest.mark.parametrize("seed", range(10))
def test_reach_is_that_of_a_chain_of_one_neuron(seed):
    """z = g dx, |w| <= r |z|, c = a dx + b w: the largest |c| with dx along g and a is |a| + |b| r |g|, times eps."""
    g, a, b, r = (float(v) for v in np.random.default_rng(seed).uniform(0.1, 2.0, 4))
    neurons = Rows(np.array([[g, 0.0]]), np.zeros((1, 1)), np.zeros(1))
    function = Rows(np.array([[a, 0.0]]), np.array([[b]]), np.zeros(1))
    true = Fraction(a) + Fraction(b) * Fraction(r) * Fraction(g)
    # the best sigma: (a + b r g)^2 = (a^2 + (b s)^2)(...) is reached at e = g^2 r (1 + a / (b r g))
    e = g * g * r * (1.0 + a / (b * r * g))
    ball = Seen(0.5, np.zeros(2))
    found = float(reach(Noises.of_secants(neurons, np.array([r]), np.sqrt(np.array([r * e]))), function, ball)[1][0])
    assert Fraction(found) >= true / 2
    assert found <= float(true) / 2 * (1 + 1e-6)
    for other in (0.5, 2.0, 30.0):
        noises = Noises.of_secants(neurons, np.array([r]), np.sqrt(np.array([other * r * e])))
        looser = float(reach(noises, function, ball)[1][0])
        assert looser == np.inf if other * e <= r * g * g else Fraction(looser) >= true / 2


@given(st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_reach_is_above_every_noise_that_is_allowed(seed):
    rng = np.random.default_rng(seed)
    u, n = int(rng.integers(1, 6)), int(rng.integers(1, 4))
    noise = np.tril(rng.normal(size=(u, u)), -1) * 0.5
    error = rng.uniform(size=u) * float(rng.choice([0.0, 1e-12, 1e-3]))
    neurons, radius = Rows(rng.normal(size=(u, n)), noise, error), rng.uniform(0.01, 0.5, u)
    functions = Rows(rng.normal(size=(2, n)), rng.normal(size=(2, u)), np.array([0.0, 1e-3]))
    scale = np.sqrt(radius * 2.0 * np.linalg.norm(neurons.inputs, 2) ** 2 * float(rng.choice([1.0, 5.0])) + 0.5)
    low, found = reach(Noises.of_secants(neurons, radius, scale), functions, Seen(0.75, np.zeros(n)))
    assert (low == -found).all()
    rest = np.isfinite(found)
    for _ in range(20):
        dx = rng.normal(size=n)
        dx = rational(np.floor(dx / np.linalg.norm(dx) * 0.75 * 2.0**30) * 2.0**-30 * (1 - 2.0**-20))
        assert sum(d * d for d in dx) <= Fraction(9, 16)
        w = rational(np.zeros(u))
        for i in range(u):
            z = (
                rational(neurons.inputs[i]).dot(dx)
                + rational(noise[i]).dot(w)
                + int(rng.choice([-1, 1])) * Fraction(error[i])
            )
            w[i] = int(rng.choice([-1, 1])) * Fraction(radius[i]) * abs(z)
        moved = abs(rational(functions.inputs).dot(dx) + rational(functions.noise).dot(w)) + rational(functions.error)
        assert (moved[rest] <= rational(found[rest])).all()


def test_a_reach_of_what_is_no_number_is_infinite():
    good = Rows(np.eye(2), np.zeros((2, 2)), np.zeros(2))
    one, ones = Rows(np.ones((1, 2)), np.ones((1, 2)), np.zeros(1)), np.ones(2)

    def length(rows, radius, scale):
        return reach(Noises.of_secants(rows, radius, scale), one, Seen(1.0, np.zeros(2)))[1]

    assert np.isfinite(length(good, 0.1 * ones, ones)).all()
    for value in (np.nan, np.inf, 0.0, 1e200, 1e-200):
        broken = np.array([value, 1.0])
        assert np.isinf(length(good, 0.1 * ones, broken)).all()
        rows = Rows(np.diag(broken) if np.isfinite(value) else np.full((2, 2), value), good.noise, good.error)
        assert np.isinf(length(rows, ones, ones)).all() or value in (0.0, 1e-200)
    assert np.isinf(length(Rows(np.eye(2), good.noise, np.array([0.0, np.inf])), 0.1 * ones, ones)).all()
    assert np.isinf(length(good, 2.0 * ones, ones)).all()  # outside the domain


@pytest.mark.parametrize("name", STRAIGHT)
@pytest.mark.parametrize("seed", range(4))
def test_secants_lie_in_the_sector(name, seed):
    rng = np.random.default_rng(seed)
    op = Elementwise(name, tuple(np.array(p) for p in STRAIGHT[name]))
    z = rng.normal(size=200) * float(rng.choice([1.0, 1e-9]))
    z[:20] = rng.choice([0.0, -0.5, 1.0, 0.3, -0.3], 20)
    centre = z - np.abs(rng.normal(size=200)) * 1e-16, z + np.abs(rng.normal(size=200)) * 1e-16
    low, high = z - np.abs(rng.normal(size=200)) * rng.choice([0.0, 1e-15, 1.0], 200), z + np.abs(rng.normal(size=200))
    sector = anchored_sector(op, centre, (low, high))
    network = chain((200,), op)
    middle, radius = rational(sector.middle), rational(sector.radius)
    for start in (*centre, z):
        for share in (0.0, 2.0**-50, 0.1, 0.5, 0.9, 1.0):
            end = np.clip(low + share * (high - low), low, high)
            dz, dv = (values(network, end[None])[k][0] - values(network, start[None])[k][0] for k in (0, 1))
            assert (abs(dv - middle * dz) <= radius * abs(dz)).all()
    still = low > 1.0
    assert (sector.radius[still] == 0).all() and (sector.radius >= 0).all()


def test_the_sector_of_a_relu_is_that_of_the_formula():
    z, low, high = np.array([1.0, -1.0, 2.0, -2.0]), np.array([-3.0, -4.0, 0.0, -5.0]), np.array([2.0, 3.0, 5.0, 0.0])
    sector = anchored_sector(RELU, (z, z), (low, high))
    assert np.allclose(sector.middle, [(0.25 + 1) / 2, 0.75 / 2, 1.0, 0.0], rtol=1e-15)
    assert np.allclose(sector.radius, [0.375, 0.375, 0.0, 0.0], rtol=1e-14)
    assert (sector.radius[2:] == 0).all()
    nothing = anchored_sector(RELU, (z, z), (np.full(4, np.nan), high))
    assert np.isnan(nothing.middle).all()


def test_only_l2_balls_and_elementwise_activations():
    evaluator = Evaluator(mlp(matrices(0, 3, 4, 3)))
    with pytest.raises(Refused, match="linf"):
        evaluator.anchored(Region.around(np.zeros((1, 3)), 0.1, "linf"), np.array([0]), _uniform(evaluator))
    pools = Evaluator(zoo()["MaxMin"])
    shape = pools.steps.network.input_shape
    with pytest.raises(Refused, match="not elementwise"):
        pools.anchored(Region.around(np.zeros((1, *shape)), 10.0), np.array([0]), _uniform(pools))


def test_boxes_are_narrowed_and_hold():
    network = mlp(matrices(3, 6, 12, 12, 12, 3))
    evaluator, rng, eps = Evaluator(network), np.random.default_rng(0), 0.7
    x, labels = rng.normal(size=(1, 6)), np.array([1])
    region = Region.around(x, eps)
    around = evaluator._around(region, NOTHING)
    boxes, _ = evaluator._narrowed_boxes(around, NOTHING)
    narrowed = Narrowing(Anchor.at_sample(around), boxes, _proposed(network, x, eps, labels).multipliers[0]).boxes
    shares = [((a[1] - a[0]) / np.maximum(b[1] - b[0], 1e-9)).min() for a, b in zip(narrowed, boxes, strict=True)]
    assert min(shares) < 0.9
    for point in _points(x, eps, rng, 20):
        for value, (low, high) in zip(values(network, point), narrowed, strict=True):
            assert (rational(low) <= value).all() and (value <= rational(high)).all()


@pytest.mark.parametrize(("eps", "least"), [(0.3, 26), (0.5, 11)])
def test_counts_on_a_real_network(shared_data, eps, least):
    """mnist_fc_3layer, of the first 30 images; CROWN proves 22 and 5 of them."""
    network, images, labels = open_network(shared_data, "models/autolirpa/mnist_fc_3layer.pth")
    found = certify_samples(network, Proposer(), Samples.of(images[:30], labels[:30]), eps)
    assert found.rows.sum() >= least


# --- norms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_boxes_from_lipschitz_bounds_hold_and_are_tighter(norm):
    """A network of nearly orthogonal layers: norms say more than intervals."""
    rotations = [np.linalg.qr(np.random.default_rng(k).normal(size=(6, 6)))[0] for k in range(3)]
    network, rng, eps = mlp(rotations), np.random.default_rng(0), 0.3
    evaluator, x, labels = Evaluator(network), rng.normal(size=(3, 6)), np.array([0, 1, 2])
    proposal = Proposal(norms=View(network).norms)
    region = Region.around(x, eps, norm)
    with_norms, without = (evaluator.intervals(region, labels, p) for p in (proposal, NOTHING))
    assert (with_norms >= without).all()
    if norm == "l2":
        assert (with_norms > without)[np.isfinite(without)].any()
        _assert_sound(network, x, eps, labels, with_norms, rng)
        _assert_sound(network, x, eps, labels, evaluator.crown(region, labels, proposal), rng)


@pytest.mark.parametrize("factor", [0.5, 1.0 - 1e-6, 0.0, -1.0, np.nan, np.inf])
def test_norms_that_are_too_small_are_not_believed(factor):
    rotations = [np.linalg.qr(np.random.default_rng(k).normal(size=(6, 6)))[0] for k in range(3)]
    network, x, labels = mlp(rotations), np.random.default_rng(0).normal(size=(3, 6)), np.array([0, 1, 2])
    evaluator, region = Evaluator(network), Region.around(x, 0.3)
    norms = View(network).norms
    wrong = Proposal(norms={**norms, min(norms): norms[min(norms)] * factor})
    assert (evaluator.intervals(region, labels, wrong) == evaluator.intervals(region, labels)).all()
    assert (evaluator.intervals(region, labels, Proposal(norms={99: 1.0})) == evaluator.intervals(region, labels)).all()
