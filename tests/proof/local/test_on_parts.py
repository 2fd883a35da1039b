"""Margins on parts of balls at level verified: whatever trees, anchors, multipliers and weights are proposed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rational_evaluation import FUNCTIONS, margins, rational, values

from lipcert.bounds.local.anchored import Anchored as Proposer
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.view import View
from lipcert.network.builder import Builder
from lipcert.network.evaluate import evaluate
from lipcert.network.operators import Dense, Elementwise, Sum
from lipcert.proof import Reason
from lipcert.proof.local import (
    NOTHING,
    BallClaim,
    Evaluator,
    LocalCertificate,
    Parts,
    Proposal,
    Region,
    Samples,
    check_local,
    witness_of,
)
from lipcert.proof.local.anchored import Anchor, Anchored
from lipcert.proof.local.differences import Rows
from lipcert.proof.local.leaves import _anchors, margins_on_parts
from lipcert.proof.local.parts import LEAF
from lipcert.proof.local.reach import Noises, Seen, reach
from lipcert.proof.local.surroundings import values_at
from lipcert.proof.local.tilted import tilted_sector
from lipcert.proof.local.weighted import Weighted, least
from lipcert.proof.local.witness import from_arrays, to_arrays
from lipcert.proof.refusal import Refused
from lipcert.testing.build import RELU, chain, dense, exact, matrices, mlp
from lipcert.testing.mutations import FAULTS, Mutant
from lipcert.testing.mutations.samples import SamplesCase, fate_of, mutants
from lipcert.testing.zoo import zoo

CURVED = {"elu": (1.0,), "tanh": (), "gelu": ()}
STRAIGHT = {"relu": (), "leaky_relu": (0.1,), "abs": (), "clip": (-0.5, 1.0), "softshrink": (0.3,)}


def _op(name):
    return Elementwise(name, tuple(np.array(p) for p in {**CURVED, **STRAIGHT}[name]))


def _tree(rng, cuts, depth):
    """A random tree in preorder, its rows drawn from some cuts."""
    if depth == 0 or rng.random() < 0.15:
        return [((-1, -1), 0.0)]
    return [cuts[rng.integers(len(cuts))], *_tree(rng, cuts, depth - 1), *_tree(rng, cuts, depth - 1)]


def _cuts(rng, network):
    """Cuts of any nodes, more of them where activations read, near the values at a point."""
    point = evaluate_all(network, rng)
    found = [((i, e), 0.0) for _, node in network.activation_nodes() for i in node.inputs for e in range(point[i].size)]
    others = [(int(i), int(rng.integers(point[i].size))) for i in rng.integers(0, len(point), 3)]
    return found + [((i, e), float(point[i].reshape(-1)[e])) for i, e in others]


def evaluate_all(network, rng):
    """Values of all nodes at a random point."""
    point = np.round(rng.normal(size=(1, *network.input_shape)), 3)
    return [value[0].astype(np.float64) for value in values(network, point)]


def _parts(rng, network, count, multipliers, eps, depth=3, size=1.0):
    """Random trees for so many samples, with something proposed for most leaves."""
    rows = [row for _ in range(count) for row in _tree(rng, _cuts(rng, network), depth)]
    cuts, at = np.array([row[0] for row in rows], dtype=np.int64), np.array([row[1] for row in rows])
    bare = Parts(
        cuts, at, np.zeros(0, np.int64), np.zeros((0, network.nodes[0].size)), {}, {}, np.zeros((0, 2), int), {}
    )
    leaves = np.flatnonzero(rng.random(len(bare.places)) < 0.9)
    rivals = network.nodes[-1].size - 1
    functions = np.array([(k, r) for k in range(len(leaves)) for r in range(rivals)], dtype=np.int64).reshape(-1, 2)
    shapes = {i: node.shape for i, node in enumerate(network.nodes) if isinstance(node.op, Elementwise)}
    return replace(
        bare,
        leaves=leaves,
        shifts=rng.normal(size=(len(leaves), network.nodes[0].size)) * eps * float(rng.choice([0.0, 0.1, 0.5, 3.0])),
        multipliers={i: e[bare.places[leaves]] for i, e in multipliers.items()},
        slopes={i: rng.uniform(-0.1, 1.1, (len(leaves), *shape)) for i, shape in shapes.items() if rng.random() < 0.7},
        functions=functions,
        weights={i: tuple(_wild(rng, (len(functions), *shape), size) for _ in "pq") for i, shape in shapes.items()},
    )


def _wild(rng, shape, size):
    return rng.normal(size=shape) * size * (rng.random(shape) < 0.7)


def _multipliers(network, x, eps, labels):
    ball = Ball.around(torch.from_numpy(x), eps)
    found = Proposer(6).bound(View(network, dtype=torch.float64), ball, torch.from_numpy(labels))
    return found.proposal(torch.arange(len(x))).multipliers


def _low_points(network, x, eps, labels, rng, norm="l2"):
    """For every rival, a point of each ball, exactly, whose margin is about the least of many; (N, *shape) each."""
    step = rng.normal(size=(len(x), 400, x[0].size))
    step /= np.linalg.norm(step, axis=2, keepdims=True)
    if norm == "linf":
        step = np.sign(step)
    step *= rng.choice([1.0, 1.0, 0.5, 0.1], size=(len(x), 400, 1))
    step = np.trunc(step * (1 - 1e-9) * 2.0**40) * 2.0**-40
    points = [rational(x)]
    for rival in range(network.nodes[-1].size):
        best = []
        for b in range(len(x)):
            outputs = evaluate(network, x[b] + eps * step[b].reshape(-1, *x[b].shape)).reshape(400, -1)
            best.append(step[b, (outputs[:, labels[b]] - outputs[:, rival]).argmin()].reshape(x[b].shape))
        points.append(rational(x) + Fraction(eps) * rational(np.stack(best)))
    return points


def _assert_sound(network, x, eps, labels, found, rng, norm="l2"):
    assert not np.isnan(found).any()
    rest, signs = np.isfinite(found), (0,) if network.is_exact else (0, 1, -1)
    for point in _low_points(network, x, eps, labels, rng, norm):
        for sign in signs:
            assert (rational(found[rest]) <= margins(network, point, labels, sign)[rest]).all()


def _elementwise():
    for name, network in zoo().items():
        if network.nodes[-1].size > 1:
            try:
                evaluator = Evaluator(network)
            except Refused:
                continue
            yield name, evaluator


SERVED = dict(_elementwise())


@pytest.mark.parametrize("name", SERVED)
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_no_bound_is_above_a_margin_inside_the_ball(name, norm):
    evaluator, rng = SERVED[name], np.random.default_rng(1)
    network = evaluator.steps.network
    x, eps = rng.normal(size=(1, *network.input_shape)), 0.25
    labels = evaluate(network, x).reshape(1, -1).argmax(axis=1)
    ops = [node.op for _, node in network.activation_nodes()]
    elementwise = all(isinstance(op, Elementwise) for op in ops)
    sets = _multipliers(network, x, eps, labels) if elementwise and norm == "l2" else ()
    region = Region.around(x, eps, norm)
    best = crown = evaluator.crown(region, labels)
    for size in (0.0, 0.1, 3.0):
        parts = _parts(rng, network, 1, sets[0] if sets else {}, eps, 2, size)
        found = evaluator.parts(region, labels, Proposal(parts=parts))
        assert (found >= crown).all()
        best = np.maximum(best, found)
    _assert_sound(network, x, eps, labels, best, rng, norm)


@given(st.integers(0, 10**6), st.sampled_from(["good", "wild", "negative", "nan", "zero", "huge", "tiny", "missing"]))
@settings(max_examples=25, deadline=None)
def test_whatever_is_proposed_what_is_derived_holds(seed, kind):
    rng = np.random.default_rng(seed)
    network = mlp(matrices(seed, 2, 4, 3, 3), _op(sorted({**STRAIGHT, **CURVED})[seed % 8]))
    evaluator, x, labels = Evaluator(network), rng.normal(size=(2, 2)), rng.integers(0, 3, 2)
    eps = float(rng.choice([0.01, 0.2, 1.0]))
    good = {i: np.full((2, *node.shape), rng.choice([1.0, 4.0, 20.0])) for i, node in network.activation_nodes()}
    with np.errstate(over="ignore"):
        changed = {
            "wild": lambda a: a * 10.0 ** rng.normal(scale=3.0, size=a.shape),
            "negative": lambda a: a * rng.choice([-1.0, 1.0], a.shape),
            "nan": lambda a: np.where(rng.random(a.shape) < 0.3, np.nan, a),
            "zero": lambda a: a * 0.0,
            "huge": lambda a: a * 1e300,
            "tiny": lambda a: a * 1e-310,
        }.get(kind, lambda a: a)
        parts = _parts(rng, evaluator.steps.network, 2, good, eps, 3, 0.3)
        which = rng.integers(4)
        if which in (0, 3):
            parts = replace(parts, multipliers={i: changed(e) for i, e in parts.multipliers.items()})
        if which in (1, 3):
            parts = replace(parts, weights={i: (changed(p), changed(q)) for i, (p, q) in parts.weights.items()})
        if which in (2, 3):
            parts = replace(parts, shifts=changed(parts.shifts))
    if kind == "missing":
        first = min(parts.weights)
        known = {i: e for i, e in parts.multipliers.items() if i == first}
        parts = replace(parts, multipliers=known, weights={first: parts.weights[first]})
    found = evaluator.parts(Region.around(x, eps), labels, Proposal(parts=parts))
    _assert_sound(network, x, eps, labels, found, rng)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("seed", [0, 2, 3, 4, 5])
def test_a_search_for_the_highest_bound_ends_below_the_truth(norm, seed):
    """Anchors, multipliers and weights are moved at random, from those of lines, and kept where the bound rises."""
    rng, eps, matrix = np.random.default_rng(seed), 0.8, matrices(seed, 2, 6, 6, 2)
    network, x = mlp(matrix), 0.3 * rng.normal(size=(1, 2))
    evaluator, region = Evaluator(network), Region.around(x, eps, norm)
    labels = evaluate(network, x).argmin(axis=1)  # nothing is proved already
    (first, one), (second, _) = network.activation_nodes()
    cuts = np.array([(one.inputs[0], 1), (-1, -1), (-1, -1)] if seed % 2 else [(-1, -1)])
    count, at = len(cuts) // 2 + 1, np.zeros(len(cuts))
    arriving = (2 * np.eye(2)[labels] - 1) @ matrix[2]
    start = {second: arriving, first: 0.5 * arriving @ matrix[1]}
    best = Parts(
        cuts,
        at,
        np.arange(count),
        np.zeros((count, 2)),
        {i: np.full((count, p.size), 20.0) for i, p in start.items()},
        {i: np.full((count, p.size), 0.5) for i, p in start.items()},
        np.stack([np.arange(count), np.zeros(count, int)], axis=1),
        {i: (np.repeat(p, count, axis=0), np.repeat(-0.5 * p, count, axis=0)) for i, p in start.items()},
    )
    bound = lowest = _of_parts(evaluator, region, labels, best)
    for step in range(60):
        size = 0.3 * 0.97**step * (np.arange(count) == rng.integers(count))[:, None]

        def moved(array, size=size):
            return array + size * rng.normal(size=array.shape) * (rng.random(array.shape) < 0.3)

        tried = replace(
            best,
            shifts=moved(best.shifts),
            multipliers={i: e * np.exp(moved(np.zeros(e.shape))) for i, e in best.multipliers.items()},
            slopes={i: moved(m) for i, m in best.slopes.items()},
            weights={i: (moved(p), moved(q)) for i, (p, q) in best.weights.items()},
        )
        found = _of_parts(evaluator, region, labels, tried)
        if found > bound:
            best, bound = tried, found
    assert bound > lowest
    found = np.where(np.arange(2) == labels[0], np.inf, bound)[None]
    _assert_sound(network, x, eps, labels, found, rng, norm)


def _of_parts(evaluator, region, labels, parts):
    """The least bound of all parts from what is proposed for them alone."""
    around = evaluator._around(region, NOTHING)
    boxes, _ = evaluator._narrowed_boxes(around, NOTHING)

    def bounded(here, known, _):
        return evaluator._narrowed_boxes(here, NOTHING, known)[0], np.full((len(here.region), 1), -np.inf)

    return margins_on_parts(around, boxes, labels, parts, bounded).min()


def _all_leaves(parts, multipliers, classes, inputs):
    """The same with anchors at the sample, multipliers and no weights for all leaves of one sample."""
    count = len(parts.places)
    functions = np.array([(k, r) for k in range(count) for r in range(classes - 1)])
    weights = {i: (np.zeros((len(functions), *e.shape[1:])),) * 2 for i, e in multipliers.items()}
    every = {i: np.repeat(e, count, axis=0) for i, e in multipliers.items()}
    return replace(
        parts,
        leaves=np.arange(count),
        shifts=np.zeros((count, inputs)),
        multipliers=every,
        functions=functions,
        weights=weights,
    )


def _whole_tree(cuts):
    """All parts that some cuts make."""
    return [LEAF] if not cuts else [cuts[0], *_whole_tree(cuts[1:]), *_whole_tree(cuts[1:])]


def _rows(*rows):
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


WHOLE = _rows(LEAF)


@pytest.mark.parametrize("seed", range(3))
def test_without_cuts_it_is_what_multipliers_prove(seed):
    network, rng, eps = mlp(matrices(seed, 4, 8, 8, 3)), np.random.default_rng(seed), 0.3
    evaluator, x = Evaluator(network), rng.normal(size=(1, 4))
    labels = evaluate(network, x).argmin(axis=1)  # nothing is proved already
    multipliers = _multipliers(network, x, eps, labels)[-1]
    bare = Parts(WHOLE, np.zeros(1), np.zeros(0, int), np.zeros((0, 4)), {}, {}, np.zeros((0, 2), int), {})
    whole, region = _all_leaves(bare, multipliers, 3, 4), Region.around(x, eps)
    found = evaluator.parts(region, labels, Proposal(parts=whole))
    anchored = evaluator.anchored(region, labels, Proposal(multipliers=[multipliers]))
    rest = np.isfinite(anchored)
    assert (found[~rest] == anchored[~rest]).all() and np.allclose(found[rest], anchored[rest], rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_cuts_prove_more(norm):
    """Both hidden layers of a small network cut at all kinks: its parts are linear but for the ball."""
    raised = 0.0
    for seed in range(4):
        network, rng = mlp(matrices(seed, 2, 3, 3, 2)), np.random.default_rng(seed)
        evaluator, x, labels = Evaluator(network), rng.normal(size=(1, 2)), np.array([seed % 2])
        region, read = Region.around(x, 0.8, norm), [node.inputs[0] for _, node in network.activation_nodes()]

        cuts = _rows(*_whole_tree([(i, k) for i in read for k in range(3)]))
        bare = Parts(cuts, np.zeros(len(cuts)), np.zeros(0, int), np.zeros((0, 2)), {}, {}, np.zeros((0, 2), int), {})
        found = evaluator.parts(region, labels, Proposal(parts=bare))
        _assert_sound(network, x, 0.8, labels, found, rng, norm)
        raised += found.min() - evaluator.crown(region, labels).min()
    assert raised > 0.01


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "abs"])
@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_where_a_part_is_linear_the_anchor_may_be_elsewhere(name, shift):
    """All neurons of one layer cut: on each part the margin is linear, and its least value on the ball is known."""
    rng, eps, matrix = np.random.default_rng(5), 0.8, matrices(5, 2, 3, 2)
    network, x = mlp(matrix, _op(name)), 0.1 * rng.normal(size=(1, 2))
    evaluator, region = Evaluator(network), Region.around(x, eps)
    labels = evaluate(network, x).argmin(axis=1)
    ((index, node),) = network.activation_nodes()
    cuts = _rows(*_whole_tree([(node.inputs[0], k) for k in range(3)]))
    bare = Parts(cuts, np.zeros(len(cuts)), np.zeros(0, int), np.zeros((0, 2)), {}, {}, _rows(), {})
    parts = _all_leaves(bare, {index: np.ones((1, 3))}, 2, 2)
    parts = replace(parts, shifts=parts.shifts + shift)
    bound = _of_parts(evaluator, region, labels, parts)
    slopes = {"relu": (0.0, 1.0), "leaky_relu": (0.1, 1.0), "abs": (-1.0, 1.0)}[name]
    first, second = (node.op for node in network.nodes if isinstance(node.op, Dense))
    row = (second.weight.mid[labels] - second.weight.mid[1 - labels])[0]
    least, empty = [], 0
    for signs in np.ndindex(2, 2, 2):
        taken = np.array([slopes[s] for s in signs])
        linear = (row * taken) @ first.weight.mid
        value = linear @ x[0] + (row * taken) @ first.bias.mid
        value += (second.bias.mid[labels] - second.bias.mid[1 - labels])[0]
        sides = np.where(np.array(signs) == 1, 1, -1)
        points = x[0] + eps * rng.uniform(-1, 1, (4000, 2))
        inside = (np.linalg.norm(points - x[0], axis=1) <= eps) & (
            (points @ first.weight.mid.T + first.bias.mid) * sides >= 0
        ).all(axis=1)
        empty += not inside.any()
        if inside.any():
            least.append(value - eps * np.linalg.norm(linear))
    assert empty < 7 and bound >= min(least) - 1e-5
    _assert_sound(network, x, eps, labels, np.where(np.arange(2) == labels[0], np.inf, bound)[None], rng)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "abs"])
def test_differences_from_a_continued_anchor_are_linear_on_the_part(name):
    """Weights and points of few bits: nothing is rounded but what a slope of 0.1 does."""
    rng = np.random.default_rng(0)
    matrix = [rng.integers(-4, 5, shape) / 4.0 for shape in ((6, 3), (6, 6), (2, 6))]
    network = mlp(matrix, _op(name))
    evaluator, x = Evaluator(network), np.round(rng.normal(size=(1, 3)) * 8) / 8
    around = evaluator._around(Region.around(x, 2.0), NOTHING)
    wrong_side = 0
    for _ in range(40):
        start, point = x + np.round(rng.normal(size=(2, 1, 3)) * 8) / 8
        values_there = values(network, point)
        boxes = [(np.full(v.shape, -99.0), np.full(v.shape, 99.0)) for v in values_there]
        for _, node in network.activation_nodes():
            low, high = boxes[node.inputs[0]]
            taken = rng.random(low.shape) < 0.7
            sides = values_there[node.inputs[0]] > 0
            low[taken & sides], high[taken & ~sides] = 0.0, 0.0
        (anchor,) = _anchors(around, boxes, start - x)
        for index, node in network.activation_nodes():
            line, source = anchor.continued[index], node.inputs[0]
            linear = ~np.isnan(line)
            assert linear.sum() >= 1 or name == "abs"
            for end in (0, 1):
                dz, dv = (values_there[i] - rational(anchor.centre[i][end]) for i in (source, index))
                assert (abs(dv - rational(np.where(linear, line, 0.0)) * dz)[linear] <= Fraction(1, 2**40)).all()
            wrong_side += (linear & (anchor.centre[source][0] * (line - line.min()) < 0)).sum()
            wide = anchor.centre[index][1] - anchor.centre[index][0]
            assert (wide <= 1e-12).all()
    assert wrong_side > 5 or name == "abs"


def test_parts_without_points_cost_nothing():
    """A cut beyond the box of a neuron leaves one half as it was, and the other empty."""
    network, x, labels = mlp(matrices(1, 3, 5, 3)), np.zeros((1, 3)), np.array([0])
    evaluator, region = Evaluator(network), Region.around(np.zeros((1, 3)), 0.2)
    crown = evaluator.crown(region, labels)
    bare = Parts(WHOLE, np.zeros(1), np.zeros(0, int), np.zeros((0, 3)), {}, {}, np.zeros((0, 2), int), {})
    for node in range(len(network.nodes)):
        for at in (-1e6, 1e6):
            cuts = np.array([(node, 1), (-1, -1), (-1, -1)])
            cut = replace(bare, cuts=cuts, at=np.array([at, 0.0, 0.0]))
            assert np.allclose(evaluator.parts(region, labels, Proposal(parts=cut)), crown, rtol=1e-12)
    _assert_sound(network, x, 0.2, labels, crown, np.random.default_rng(0))


def test_a_box_that_overflows_is_not_taken_for_an_empty_part():
    network = mlp([np.eye(2) * 1e200, np.eye(2) * 1e200, np.array([[1.0, 0.0], [0.0, 1.0]])])
    evaluator, labels = Evaluator(network), np.array([0])
    cuts = np.array([(3, 0), (-1, -1), (-1, -1)])
    bare = Parts(cuts, np.zeros(3), np.zeros(0, int), np.zeros((0, 2)), {}, {}, np.zeros((0, 2), int), {})
    found = evaluator.parts(Region.around(np.array([[1.0, 1.0]]), 0.1), labels, Proposal(parts=bare))
    assert found[0, 1] == -np.inf


# --- trees ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cuts",
    [
        _rows(),
        _rows((1, 0)),
        _rows((1, 0), LEAF),
        _rows(LEAF, LEAF),
        _rows((1, 0), LEAF, LEAF, LEAF),
        _rows(LEAF, (1, 0), LEAF),
        _rows((1, 0), (1, 1), LEAF, LEAF),
        _rows((1, 0), LEAF, (1, 1), LEAF),
        _rows((1, 5), LEAF, LEAF),
        _rows((9, 0), LEAF, LEAF),
        _rows((-1, 0), LEAF, LEAF),
        _rows((1, -1), LEAF, LEAF),
        _rows((1, 0), (-2, -1), LEAF),
        np.zeros((3, 3), dtype=np.int64),
        np.zeros(3, dtype=np.int64),
    ],
)
def test_what_is_no_tree_is_refused(cuts):
    network = mlp(matrices(0, 3, 5, 3))
    parts = Parts(cuts, np.zeros(len(cuts)), np.zeros(0, int), np.zeros((0, 3)), {}, {}, np.zeros((0, 2), int), {})
    with pytest.raises(Refused):
        Evaluator(network).parts(Region.around(np.zeros((1, 3)), 0.5), np.array([0]), Proposal(parts=parts))


@pytest.mark.parametrize(
    "change",
    [
        {"at": np.zeros(2)},
        {"at": np.array([np.nan, 0.0, 0.0])},
        {"at": np.array([np.inf, 0.0, 0.0])},
        {"leaves": np.array([1, 0])},
        {"leaves": np.array([0, 2])},
        {"leaves": np.array([-1, 0])},
        {"slopes": {2: np.ones((1, 5))}},
        {"leaves": np.array([0])},
        {"shifts": np.zeros((2, 4))},
        {"functions": np.array([(2, 0)])},
        {"functions": np.array([(0, 2)])},
        {"functions": np.array([(0, -1)])},
        {"functions": np.zeros((3, 2), int)},
        {"multipliers": {2: np.ones((1, 5))}},
        {"multipliers": {1: np.ones((2, 5))}},
        {"multipliers": {99: np.ones((2, 5))}},
        {"weights": {2: (np.ones((1, 5)), np.ones((2, 5)))}},
        {"weights": {-1: (np.ones((1, 5)),) * 2}},
    ],
)
def test_proposals_of_wrong_shape_are_refused(change):
    network = mlp(matrices(0, 3, 5, 3))
    good = Parts(
        _rows((1, 0), LEAF, LEAF),
        np.zeros(3),
        np.arange(2),
        np.zeros((2, 3)),
        {2: np.ones((2, 5))},
        {},
        np.array([(1, 0)]),
        {2: (np.ones((1, 5)),) * 2},
    )
    evaluator, region = Evaluator(network), Region.around(np.zeros((1, 3)), 0.5)
    assert evaluator.parts(region, np.array([0]), Proposal(parts=good)).shape == (1, 3)
    with pytest.raises(Refused):
        evaluator.parts(region, np.array([0]), Proposal(parts=replace(good, **change)))


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_every_point_is_in_a_part_and_samples_may_be_taken(seed):
    rng = np.random.default_rng(seed)
    network = mlp(matrices(seed, 2, 4, 3, 2))
    ones = {i: np.ones((4, *node.shape)) for i, node in network.activation_nodes()}
    parts = _parts(rng, network, 4, ones, 0.5, 4)
    parts.require(network, 4)
    point = [value[None] for value in evaluate_all(network, rng)]
    wide = [(np.full(v.shape, -1e9), np.full(v.shape, 1e9)) for v in point]
    inside = np.zeros(4, dtype=bool)
    for leaf, sample in enumerate(parts.places):
        boxes = parts.clipped(wide, np.array([leaf]))
        inside[sample] |= all((lo <= v).all() and (v <= hi).all() for v, (lo, hi) in zip(point, boxes, strict=True))
    assert inside.all()
    mask = rng.random(4) < 0.5
    some, alone = parts.take(mask), [parts.take(slice(b, b + 1)) for b in np.flatnonzero(mask)]
    some.require(network, int(mask.sum())) if mask.any() else None
    for name in ("cuts", "at", "shifts"):
        assert (getattr(some, name) == np.concatenate([getattr(a, name) for a in [some.take(slice(0)), *alone]])).all()
    assert sum(len(a.functions) for a in alone) == len(some.functions)
    again = from_arrays(to_arrays(Proposal(parts=parts)), network, 4).parts
    assert all((getattr(again, name) == getattr(parts, name)).all() for name in ("cuts", "at", "leaves", "functions"))
    assert all((again.weights[i][k] == parts.weights[i][k]).all() for i in parts.weights for k in (0, 1))


def test_a_sample_may_have_several_trees_or_none():
    network, rng, eps = mlp(matrices(3, 3, 6, 5, 3)), np.random.default_rng(3), 0.4
    evaluator, x = Evaluator(network), rng.normal(size=(4, 3))
    labels = evaluate(network, x).argmin(axis=1)
    multipliers = {i: np.full((5, *node.shape), 4.0) for i, node in network.activation_nodes()}
    parts = replace(_parts(rng, network, 5, multipliers, eps, 3, 0.2), owners=np.array([0, 0, 2, 2, 3]))
    region = Region.around(x, eps)
    whole = evaluator.parts(region, labels, Proposal(parts=parts))
    assert (whole[1] == evaluator.crown(region, labels)[1]).all()
    _assert_sound(network, x, eps, labels, whole, rng)
    alone = []
    for tree in range(5):
        mine = np.arange(5) == tree
        sample = slice(int(parts.owners[tree]), int(parts.owners[tree]) + 1)
        one = replace(replace(parts, owners=None).take(mine), owners=None)
        alone.append(evaluator.parts(Region.around(x[sample], eps), labels[sample], Proposal(parts=one))[0])
    for sample, trees in ((0, (0, 1)), (2, (2, 3)), (3, (4,))):
        assert np.allclose(whole[sample], np.max([alone[t] for t in trees], axis=0), rtol=1e-12, atol=1e-12)
    some = parts.take(np.array([True, True, False, True]))
    some.require(network, 3)
    assert (some.owners == [0, 0, 2]).all()
    again = from_arrays(to_arrays(Proposal(parts=parts)), network, 4).parts
    assert (again.owners == parts.owners).all()
    for owners in ([0, 0, 2, 2], [0, 0, 2, 1, 3], [0, 0, 2, 2, 4], [-1, 0, 2, 2, 3]):
        with pytest.raises(Refused):
            replace(parts, owners=np.array(owners)).require(network, 4)


def test_a_batch_is_its_samples_one_by_one():
    network, rng, eps = mlp(matrices(3, 3, 6, 5, 3)), np.random.default_rng(3), 0.4
    evaluator, x, labels = Evaluator(network), rng.normal(size=(5, 3)), np.arange(5) % 3
    parts = _parts(rng, network, 5, _multipliers(network, x, eps, labels)[0], eps, 3, 0.2)
    whole = evaluator.parts(Region.around(x, eps), labels, Proposal(parts=parts))
    for b in range(5):
        one = slice(b, b + 1)
        alone = evaluator.parts(Region.around(x[one], eps), labels[one], Proposal(parts=parts).take(one))
        assert np.allclose(alone[0], whole[b], rtol=1e-12, atol=1e-12)


# --- what it is made of -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted({**STRAIGHT, **CURVED}))
@pytest.mark.parametrize("seed", range(3))
def test_a_weighted_cut_is_never_violated(name, seed):
    """p phi(z) + q z at rational points of the box, one neuron at a time."""
    rng = np.random.default_rng(seed)
    op, scale = _op(name), float(rng.choice([1.0, 1e-9, 1e3]))
    p, q = (rng.normal(size=(30, 1, 1)) * 10.0 ** rng.integers(-9, 9, (30, 1, 1)) for _ in "pq")
    p[:5], q[5:10], q[10:15] = 0.0, 0.0, -p[10:15]
    p[15] = 5e-324
    parameters = [rational(v).item() for v in op.params]
    for low, high in ((-scale, 2 * scale), (0.0, scale), (-scale, 0.0), (scale, 1.5 * scale), (0.1, 0.1)):
        box = np.full((1, 1), low), np.full((1, 1), high)
        found = least(op, box, p.reshape(1, 30, 1), q.reshape(1, 30, 1))[0]
        for share in (0.0, 2.0**-40, 0.25, 1 / 3, 0.5, 0.8, 1.0):
            z = Fraction(low) + Fraction(share) * (Fraction(high) - Fraction(low))
            v = FUNCTIONS[op.name](z, *parameters)
            for k in range(30):
                assert Fraction(float(found[k])) <= Fraction(p[k].item()) * v + Fraction(q[k].item()) * z
        if name in STRAIGHT:
            points = [low, high, *(c for c in (0.0, -0.5, 1.0, 0.3, -0.3) if low < c < high)]
            at = np.array([float(FUNCTIONS[op.name](Fraction(z), *parameters)) for z in points])
            true = (p.reshape(-1, 1) * at + q.reshape(-1, 1) * np.array(points)).min(axis=1)
            size = np.abs(p.reshape(-1, 1) * at).max(axis=1) + np.abs(q.reshape(-1)) * max(abs(low), abs(high))
            assert (found >= true - 1e-14 * size - 1e-300).all()


@given(st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_reach_holds_for_every_noise_seen_from_any_anchor(seed):
    rng = np.random.default_rng(seed)
    u, n, eps = int(rng.integers(0, 6)), int(rng.integers(1, 4)), 0.75
    noise = np.tril(rng.normal(size=(u, u)), -1) * 0.5
    error = rng.uniform(size=u) * float(rng.choice([0.0, 1e-12, 1e-3]))
    rows, radius = Rows(rng.normal(size=(u, n)), noise, error), rng.uniform(0.01, 0.5, u)
    functions = Rows(rng.normal(size=(2, n)), rng.normal(size=(2, u)), np.array([0.0, 1e-3]))
    norm = np.linalg.norm(rows.inputs, 2) if u else 1.0
    scale = np.sqrt(radius * 2.0 * norm**2 * float(rng.choice([1.0, 5.0])) + 0.5)
    shift = rng.normal(size=n) * 10.0 ** float(rng.choice([-20, -3, -0.5, 0.5]))
    lift, slope = rng.normal(size=u) * float(rng.choice([0.0, 1e-9, 0.1])), rng.uniform(-1, 1, u)
    noises = Noises(rows, radius, scale, lift, slope, np.full(u, 1e3))
    low, high = reach(noises, functions, Seen(eps, shift))
    rest = np.isfinite(high)
    assert (np.isfinite(low) == rest).all()
    for _ in range(20):
        y = rng.normal(size=n)
        y = rational(np.trunc(y / np.linalg.norm(y) * eps * 2.0**30) * 2.0**-30 * (1 - 2.0**-20))
        assert sum(d * d for d in y) <= Fraction(eps) ** 2
        dx, w = y - rational(shift), rational(np.zeros(u))
        for i in range(u):
            z = rational(rows.inputs[i]).dot(dx) + rational(noise[i]).dot(w)
            z += int(rng.choice([-1, 1])) * Fraction(error[i])
            w[i] = _noise(rng, z, *(Fraction(part[i]) for part in (radius, scale, lift, slope)))
            if w[i] is None:
                break
        else:
            moved = rational(functions.inputs).dot(dx) + rational(functions.noise).dot(w)
            lost = rational(functions.error)
            assert (rational(low[rest]) <= (moved - lost)[rest]).all()
            assert ((moved + lost)[rest] <= rational(high[rest])).all()


def _noise(rng, z, r, sigma, g, k):
    """Some w with w^2 <= r^2 z^2 + 2 sigma^2 g (k z + w), or None where none was met."""
    middle = sigma**2 * g  # (w - middle)^2 <= that squared + r^2 z^2 + 2 middle k z
    square = middle**2 + (r * z) ** 2 + 2 * middle * k * z
    if square < 0:
        return None
    root = Fraction(np.nextafter(np.sqrt(float(square)) * (1 - 1e-12), 0.0))
    w = middle + int(rng.choice([-1, 1])) * max(root, Fraction(0))
    return w if w**2 <= (r * z) ** 2 + 2 * middle * (k * z + w) and abs(w) <= 1000 else None


@pytest.mark.parametrize("seed", range(6))
def test_a_tilted_sector_holds(seed):
    """w^2 <= r^2 dz^2 + p (k dz + w), w = dv - m dz, in rational numbers, with k dz + w >= 0 wherever p is not zero."""
    rng = np.random.default_rng(seed)
    scale = float(rng.choice([1.0, 1e-9]))
    centre = rng.normal(size=300) * scale
    centre[:20] = rng.choice([0.0, 1.0], 20) * scale
    ends = centre - rng.choice([0.0, 1e-17, 1e-17 * scale], 300), centre + rng.choice([0.0, 1e-17], 300)
    low, high = -np.abs(rng.normal(size=300)) * scale, np.abs(rng.normal(size=300)) * scale
    low[:100] = np.minimum(low[:100], centre[:100])
    middle = rng.uniform(-0.2, 1.2, 300)
    middle[:30] = rng.choice([0.0, 0.5, 1.0, np.nan, 1e-300, 1 - 2.0**-53], 30)
    found = tilted_sector(RELU, ends, (low, high), middle)
    assert (found.rise != 0).sum() > 60 and (found.radius > 0).sum() > 250
    m, r, p, k = (rational(part) for part in vars(found).values())
    for start in (ends[0], centre, ends[1]):
        for share in (0.0, 2.0**-50, 0.2, 0.4, 0.7, 1.0):
            end = np.clip(low + share * (high - low), low, high)
            z, z_0 = rational(end), rational(start)
            dz, dv = z - z_0, np.maximum(z, 0) - np.maximum(z_0, 0)
            w = dv - m * dz
            assert (w**2 <= r**2 * dz**2 + p * (k * dz + w)).all()
            assert ((p == 0) | (k * dz + w >= 0)).all()


@pytest.mark.parametrize("seed", range(4))
def test_noises_are_what_is_said_of_them(seed):
    """w^2 <= r^2 dz^2 + 2 sigma^2 g (k dz + w) and |w| <= its width, in rational numbers, for points of the ball."""
    network, rng, eps = mlp(matrices(seed, 3, 8, 8, 2)), np.random.default_rng(seed), 0.7
    evaluator, x, shift = Evaluator(network), 0.2 * rng.normal(size=(1, 3)), 0.2 * rng.normal(size=3)
    around = evaluator._around(Region.around(x, eps), NOTHING)
    boxes, _ = evaluator._narrowed_boxes(around, NOTHING)
    ones = {i: rng.uniform(0.5, 20.0, (1, 8)) for i, _ in network.activation_nodes()}
    slopes = {i: rng.uniform(0.0, 1.0, (1, 8)) for i in ones}
    start = np.round((x + shift) * 2.0**20) * 2.0**-20
    anchor = Anchor(evaluator.steps, values_at(evaluator.steps, (start, start)), Seen(eps, (start - x)[0]))
    noises = Anchored(anchor, boxes, ones, slopes)
    first = values(network, start)
    tilted = 0
    for point in _low_points(network, x, eps, np.array([0]), rng):
        last = values(network, point)
        for index, known in zip(ones, noises._noises, strict=True):
            pick, middle = noises._differences._picks[index], noises._differences._slopes[index].low_slope[0, 0]
            radius, scale, lift, slope, width = (rational(part) for part in known)
            dz, dv = ((last[i] - first[i])[0][pick] for i in (network.nodes[index].inputs[0], index))
            w = dv - rational(middle[pick]) * dz
            assert (w**2 <= radius**2 * dz**2 + 2 * scale**2 * lift * (slope * dz + w)).all()
            assert (abs(w) <= width).all()
            tilted += (lift != 0).sum()
    assert tilted > 10


def test_the_reach_from_an_anchor_is_that_of_the_ball_where_nothing_is_noisy():
    """One function of a linear network: c.(x - x*) for |x - x_0| <= eps lies in -c.a +- eps |c|."""
    c, a = np.array([[3.0, 4.0]]), np.array([0.3, -0.7])
    none = Rows(np.zeros((0, 2)), np.zeros((0, 0)), np.zeros(0))
    noises = Noises.of_secants(none, np.zeros(0), np.zeros(0))
    low, high = reach(noises, Rows(c, np.zeros((1, 0)), np.zeros(1)), Seen(0.5, a))
    middle = -float(c[0] @ a)
    assert low[0] <= middle - 2.5 <= low[0] * (1 - 1e-5) + 1e-5 and middle + 2.5 <= high[0] <= middle + 2.5 + 1e-5


def test_no_node_has_weights_twice():
    """A trailing activation, and one that reads another: weights of the output or of a node that has some are left."""
    network = chain((2,), dense(np.eye(2)), RELU, _op("abs"), dense(np.eye(2)), RELU)
    evaluator, rng = Evaluator(network), np.random.default_rng(0)
    acts = [i for i, _ in evaluator.steps.network.activation_nodes()]
    weights = {i: (rng.normal(size=(1, 2)), rng.normal(size=(1, 2))) for i in acts}
    assert set(Weighted.of(evaluator.steps, weights).weights) == {acts[0]}
    x, labels = rng.normal(size=(1, 2)), np.array([0])
    for _ in range(20):
        multipliers = {i: np.full((1, 2), 2.0) for i in acts}
        parts = _parts(rng, evaluator.steps.network, 1, multipliers, 0.5, 2, 0.5)
        found = evaluator.parts(Region.around(x, 0.5), labels, Proposal(parts=parts))
        _assert_sound(network, x, 0.5, labels, found, rng)


def test_two_activations_that_read_one_node():
    builder = Builder((2,))
    first = builder.add(dense(np.array([[1.0, 0.5], [-0.5, 1.0]])), 0)
    both = builder.add(Sum((1, -1)), builder.add(RELU, first), builder.add(_op("leaky_relu"), first))
    builder.add(Dense(exact(np.array([[1.0, -1.0], [0.5, 2.0]])), exact(np.zeros(2))), both)
    network, rng = builder.build(), np.random.default_rng(0)
    evaluator, x, labels = Evaluator(network), rng.normal(size=(1, 2)), np.array([0])
    for _ in range(20):
        ones = {i: np.full((1, 2), 2.0) for i, _ in evaluator.steps.network.activation_nodes()}
        parts = _parts(rng, evaluator.steps.network, 1, ones, 0.5, 2, 0.5)
        found = evaluator.parts(Region.around(x, 0.5), labels, Proposal(parts=parts))
        _assert_sound(network, x, 0.5, labels, found, rng)


def test_nothing_proposed_is_crown():
    evaluator = Evaluator(mlp(matrices(2, 3, 6, 3)))
    x, labels = np.random.default_rng(0).normal(size=(3, 3)), np.arange(3)
    for norm in ("l1", "l2", "linf"):
        region = Region.around(x, 0.2, norm)
        assert (evaluator.parts(region, labels, NOTHING) == evaluator.crown(region, labels)).all()


# --- certificates -----------------------------------------------------------------------------------------------

KINKED = chain(
    (2,),
    Dense(exact(np.array([[1.0, 1.0], [1.0, -1.0]])), exact(np.zeros(2))),
    RELU,
    Dense(exact(np.array([[0.0, 0.0], [1.0, 1.0]])), exact(np.array([2.2, 0.0]))),
)
"""Its margin is 2.2 - relu(x + y) - relu(x - y), at least 0.2 within 1 of x = y = 0; lines prove -0.2 in l2."""


def _certificate(norm):
    """Of two samples: by the four parts that two kinks make, or from an anchor, with weighted cuts."""
    ((index, node),) = Evaluator(KINKED).steps.network.activation_nodes()
    samples = Samples.of(np.array([[0.0, 0.01], [-0.02, 0.0]]), np.zeros(2, dtype=np.int64))
    if norm == "linf":
        tree = [(node.inputs[0], 0), *[(node.inputs[0], 1), LEAF, LEAF] * 2]
        parts = Parts(_rows(*tree * 2), np.zeros(14), np.zeros(0, int), np.zeros((0, 2)), {}, {}, _rows(), {})
    else:
        two = np.ones((2, 1))
        parts = Parts(
            _rows(LEAF, LEAF),
            np.zeros(2),
            np.arange(2),
            two * [[0.17, -0.09]],
            {index: np.exp(two * [[0.67, 0.48]])},
            {index: two * [[0.44, 0.14]]},
            _rows((0, 0), (1, 0)),
            {index: (two * [[-0.14, -0.2]], two * [[0.07, 0.1]])},
        )
    claim = BallClaim(norm, 1.0, None, samples.digest)
    return LocalCertificate.of(KINKED, claim, "local-parts/v1", witness_of(Proposal(parts=parts)), samples)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_parts_prove_what_lines_do_not(norm):
    made = _certificate(norm)
    assert check_local(LocalCertificate.from_bytes(made.to_bytes()), KINKED).valid
    for rule in ("local-intervals/v1", "local-lines/v1"):
        assert not check_local(replace(made, rule=rule, witness={}), KINKED).valid
    for name in made.witness:
        rest = {k: v for k, v in made.witness.items() if k != name}
        assert name == "parts/slopes/2" or not check_local(replace(made, witness=rest), KINKED).valid
    larger = replace(made, claim=replace(made.claim, eps=1.11))
    assert check_local(larger, KINKED).reason is Reason.NOT_ROBUST


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_no_mutant_is_believed(norm):
    case = SamplesCase(_certificate(norm), KINKED)
    assert fate_of(Mutant("none", case.content, case.network)) == "harmless"
    made = list(mutants(case, 1, 10))
    fates = Counter((mutant.kind, fate_of(mutant)) for mutant in made)
    assert not [entry for entry in fates if entry[1] in FAULTS]
    assert sum(count for (_, fate), count in fates.items() if fate == "rejected") > 0.5 * len(made)
    assert ("half of a tree" in {kind for kind, _ in fates}) == (norm == "linf")
