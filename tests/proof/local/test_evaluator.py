"""Verified margins against rational arithmetic, and against the numerical methods that they stand for."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from local_regions import served
from rational_evaluation import margins, rational, values

from lipcert.bounds.local.method import Crown
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.view import View
from lipcert.errors import UsageError
from lipcert.network.enclosure import Enclosure
from lipcert.network.operators import Dense, Elementwise, Scale, Sort
from lipcert.proof.local import Evaluator, Proposal, Region
from lipcert.proof.refusal import Refused
from lipcert.testing.build import RELU, chain, dense, exact, matrices, mlp
from lipcert.testing.zoo import zoo

NORMS = ("l1", "l2", "linf")


SERVED = served()
EXACT = {"relu", "leaky_relu", "abs", "clip", "softshrink"}


def _case(evaluator, seed, count=3):
    network, rng = evaluator.steps.network, np.random.default_rng(seed)
    x = rng.normal(size=(count, *network.input_shape))
    outputs = values(network, x)[-1].reshape(count, -1)
    return network, x, np.array([row.argmax() for row in outputs], dtype=np.int64)


def _inside(x, eps, norm, rng):
    """Points of the balls around x, exactly: the centre, and corners or points along an axis or a direction."""
    points = [x]
    for _ in range(4):
        step = rng.choice([-1.0, 1.0], size=x.shape)
        if norm != "linf":
            flat = np.zeros((len(x), x[0].size))
            flat[np.arange(len(x)), rng.integers(0, x[0].size, len(x))] = 1.0
            step = step * flat.reshape(x.shape)
        points.append(rational(x) + Fraction(eps) * rational(step))
    return points


def test_there_is_something_to_test():
    assert len(SERVED) > 25


@pytest.mark.parametrize("name", SERVED)
@pytest.mark.parametrize("norm", NORMS)
def test_no_bound_is_above_a_margin_inside_the_ball(name, norm):
    evaluator, rng = SERVED[name], np.random.default_rng(1)
    network, x, labels = _case(evaluator, 2)
    for eps in (2.0**-60, 0.125):
        found = [
            rule(Region.around(x, eps, norm), labels)
            for rule in (evaluator.intervals, evaluator.zonotope, evaluator.crown)
        ]
        for point in _inside(x, eps, norm, rng):
            for sign in (0, 1, -1):
                true = margins(network, point, labels, sign)
                for bounds in found:
                    rest = np.isfinite(bounds)
                    assert (rational(bounds[rest]) <= true[rest]).all()


@pytest.mark.parametrize("name", SERVED)
@pytest.mark.parametrize("norm", NORMS)
def test_the_bound_is_no_lower_than_that_of_crown_but_for_rounding(name, norm):
    evaluator = SERVED[name]
    network, x, labels = _case(evaluator, 3)
    ops = [node.op for _, node in network.activation_nodes()]
    if any(isinstance(node.op, Sort) and node.shape[-1] > 2 for node in network.nodes):
        pytest.skip("sorting more than two has no lines")
    curved = any(isinstance(op, Elementwise) and op.name not in EXACT for op in ops)
    ball = Ball.around(torch.from_numpy(x), 0.1, norm)
    view, classes = View(zoo()[name], dtype=torch.float64), torch.from_numpy(labels)
    bounds = Crown().bound(view, ball, classes)
    numerical, proposal = bounds.margins.numpy(), bounds.proposal(torch.arange(len(x)))
    verified = evaluator.crown(Region.around(x, 0.1, norm), labels, proposal)
    rest = np.isfinite(numerical)
    # lines of curved activations are derived on cells: they miss the best ones a little
    room = (1e-4 if curved else 1e-9) * (1.0 + np.abs(numerical[rest]).max())
    if not network.is_exact:
        pytest.skip("intervals of weights are charged")
    assert (verified[rest] >= numerical[rest] - room).all()


def _exact_minimum(network, start, end, labels):
    """Exact least margins (classes,) on a segment: the network is linear between the zeros of what ReLUs read."""
    times = [Fraction(0), Fraction(1)]
    read = [node.inputs[0] for _, node in network.activation_nodes()]

    def at(ts):
        points = np.stack([rational(start) + t * (rational(end) - rational(start)) for t in ts])
        return values(network, points)

    for node in read:
        levels = at(times)[node].reshape(len(times), -1)
        new = set(times)
        for (s, a), (t, b) in pairwise(zip(times, levels, strict=True)):
            new |= {s + (t - s) * u / (u - v) for u, v in zip(a, b, strict=True) if u * v < 0}
        times = sorted(new)
    outputs = at(times)[-1].reshape(len(times), -1)
    return (outputs[:, labels][:, None] - outputs).min(axis=0)


@given(st.integers(0, 10**6), st.sampled_from(NORMS), st.sampled_from([0.05, 0.3, 1.0]))
@settings(max_examples=40, deadline=None)
def test_no_bound_is_above_the_exact_minimum_on_a_line(seed, norm, eps):
    rng = np.random.default_rng(seed)
    network = mlp(matrices(seed, 2, 4, 3, 3))
    evaluator = Evaluator(network)
    x, labels = rng.normal(size=(1, 2)), rng.integers(0, 3, 1)
    found = evaluator.crown(Region.around(x, eps, norm), labels)[0]
    step = eps * np.array([1.0, 0.0]) if norm != "linf" else np.array([eps, -eps])
    ends = [rational(x[0]) + sign * rational(step) for sign in (1, -1)]
    true = _exact_minimum(evaluator.steps.network, *ends, labels[0])
    rest = np.isfinite(found)
    assert (rational(found[rest]) <= true[rest]).all()


# --- scales -------------------------------------------------------------------------------------------------


def test_a_cancellation_that_float64_gets_wrong():
    """The margin is -0.5; float64 loses the 1 beside 2^60 and finds a positive number."""
    network = chain((3,), Dense(exact(np.array([[2.0**60, 1.0, -(2.0**60)], [0.0, 0.0, 0.0]])), exact(np.zeros(2))))
    shifted = chain((3,), network.nodes[1].op, Scale(exact(1.0), exact(np.array([0.0, -0.5]))))
    x, labels = np.array([[1.0, -1.0, 1.0]]), np.array([0])
    naive = (2.0**60 * 1.0 + 1.0 * -1.0) - 2.0**60 * 1.0 + 0.5
    assert naive > 0
    for rule in (Evaluator(shifted).intervals, Evaluator(shifted).crown):
        assert rule(Region.around(x, 2.0**-80), labels)[0, 1] <= -0.5


@given(st.integers(0, 10**6), st.sampled_from(NORMS))
@settings(max_examples=60, deadline=None)
def test_weights_of_any_size(seed, norm):
    """Entries between 2^-300 and 2^200, neighbours that cancel, radii: never above the exact margin."""
    rng = np.random.default_rng(seed)

    def wild(m, n):
        spread = int(rng.choice([3, 60, 200]))
        w = rng.normal(size=(m, n)) * 2.0 ** rng.integers(-spread, spread, size=(m, n))
        w[:, n // 2 :] = -w[:, : n - n // 2] * (1 + rng.choice([0.0, 2.0**-52, 2.0**-30], size=(m, n - n // 2)))
        return np.where(rng.random((m, n)) < 0.5, w, np.abs(w) * 2.0 ** -float(rng.choice([0, 300])))

    layers = [
        Dense(Enclosure(w, None if rng.random() < 0.5 else np.abs(w) * 2.0**-50), exact(w[:, 0] * 2.0**-20))
        for w in (wild(4, 3), wild(4, 4), wild(3, 4))
    ]
    act = RELU if rng.random() < 0.5 else Elementwise("leaky_relu", (np.array(0.1),))
    network = chain((3,), layers[0], act, layers[1], act, layers[2])
    evaluator = Evaluator(network)
    x, labels = rng.normal(size=(2, 3)), rng.integers(0, 3, 2)
    eps = float(2.0 ** rng.integers(-70, 2))
    found = [
        rule(Region.around(x, eps, norm), labels) for rule in (evaluator.intervals, evaluator.zonotope, evaluator.crown)
    ]
    for point in _inside(x, eps, norm, rng):
        for sign in (0, 1, -1):
            true = margins(network, point, labels, sign)
            for bounds in found:
                rest = np.isfinite(bounds)
                assert (rational(bounds[rest]) <= true[rest]).all()


def test_underflow_is_counted():
    """Products of 1e-200 and 1e-200 vanish in float64; the true margin is negative."""
    weight = np.array([[-1e-200, 0.0], [0.0, 0.0]])
    network = chain((2,), Dense(exact(np.eye(2) * 1e-200), exact(np.zeros(2))), RELU, dense(weight))
    plain = chain((2,), network.nodes[1].op, RELU, Dense(exact(weight), exact(np.zeros(2))))
    x, labels = np.array([[1.0, 1.0]]), np.array([0])
    for rule in (Evaluator(plain).intervals, Evaluator(plain).crown):
        assert not rule(Region.around(x, 1e-3), labels)[0, 1] >= 0


def test_an_overflow_spoils_its_own_sample_only():
    network = mlp([np.eye(2) * 1e150, np.eye(2) * 1e100, np.array([[1.0, 0.0], [0.0, 1.0]])])
    evaluator = Evaluator(network)
    x = np.array([[1e100, 0.0], [2e-200, 1e-200], [np.nan, 0.0], [np.inf, 0.0]])
    found = evaluator.crown(Region.around(x, 1e-203), np.zeros(4, dtype=np.int64))
    assert (found[[0, 2, 3], 1] == -np.inf).all() and np.isfinite(found[1, 1])


def test_inputs_outside_the_box_are_not_certified():
    network = mlp([np.eye(2), np.eye(2)])
    x = np.array([[0.9, 0.1], [1.5, 0.1]])
    found = Evaluator(network).crown(Region.around(x, 0.01, "linf", (0.0, 1.0)), np.zeros(2, dtype=np.int64))
    assert found[0, 1] > 0 and found[1, 1] == -np.inf


@pytest.mark.parametrize("norm", NORMS)
def test_a_box_never_loosens_a_bound(norm):
    evaluator = Evaluator(mlp(matrices(4, 3, 6, 6, 3)))
    x = np.random.default_rng(0).uniform(size=(5, 3))
    labels = np.arange(5) % 3
    boxed = evaluator.crown(Region.around(x, 0.3, norm, (0.0, 1.0)), labels)
    free = evaluator.crown(Region.around(x, 0.3, norm), labels)
    rest = np.isfinite(free)
    if norm != "linf":  # slopes of narrower boxes may serve a margin worse
        assert np.mean(boxed[rest] >= free[rest] - 1e-12) > 0.5
    corners = np.clip(x + 0.3 * np.sign(np.random.default_rng(1).normal(size=x.shape)) * np.eye(3)[labels], 0.0, 1.0)
    true = margins(evaluator.steps.network, corners, labels)
    assert (rational(boxed[rest]) <= true[rest]).all()


@pytest.mark.parametrize("seed", range(6))
def test_any_slopes_will_do(seed):
    """Proposed for margins and for entries, wild or not numbers at all: no bound is above a margin."""
    network = mlp(matrices(8 + seed, 4, 8, 8, 3))
    evaluator, rng = Evaluator(network), np.random.default_rng(seed)
    x, labels = rng.normal(size=(3, 4)), np.array([0, 1, 2])
    first, second = (i for i, _ in evaluator.steps.network.activation_nodes())

    def slopes(count):
        return tuple(rng.normal(size=(3, count, 8)) * 10.0 ** rng.integers(-3, 4) + rng.choice([0, 1]) for _ in "lu")

    rows = np.stack([rng.permutation(8)[:5] for _ in range(3)])
    read = evaluator.steps.nodes[second].inputs[0]
    proposal = Proposal({first: slopes(2), second: slopes(2)}, {read: (rows, {first: slopes(10)})})
    own = evaluator.crown(Region.around(x, 0.25, "linf"), labels)
    found = evaluator.crown(Region.around(x, 0.25, "linf"), labels, proposal)
    for point in _inside(x, 0.25, "linf", rng):
        true = margins(evaluator.steps.network, point, labels)
        rest = np.isfinite(found)
        assert (rational(found[rest]) <= true[rest]).all()
    proposal.margins[first][0][0, 0, 0] = np.nan
    broken = evaluator.crown(Region.around(x, 0.25, "linf"), labels, Proposal(proposal.margins))
    assert (broken >= own).all() and not np.isnan(broken).any()  # the evaluator's own slopes still count


def test_what_has_no_verified_rule_is_refused_by_name():
    with pytest.raises(Refused, match="sin"):
        Evaluator(mlp(matrices(0, 2, 3, 2), Elementwise("sin")))


@pytest.mark.parametrize("wrong", [{"eps": 0.0}, {"eps": float("nan")}, {"eps": 0.1, "norm": "l3"}])
def test_wrong_regions_are_refused(wrong):
    with pytest.raises(UsageError):
        Region.around(np.zeros((1, 2)), **wrong)
