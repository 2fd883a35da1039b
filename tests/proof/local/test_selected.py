"""Linear functions below and above maxima, against rational numbers at the corners of the boxes."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rational_evaluation import rational

from lipcert.network.builder import Builder
from lipcert.network.evaluate import evaluate_node
from lipcert.network.operators import Extremum, MaxPool, Scale, Sort
from lipcert.proof.local.backward import Account, Backward
from lipcert.proof.local.boxes import Steps
from lipcert.proof.local.selected import pool_places, selections
from lipcert.testing.build import chain, exact

POOLS = {
    "plain": (MaxPool((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)), (2, 4, 4)),
    "overlapping": (MaxPool((3, 2), (1, 1), ((0, 0), (0, 0)), (1, 1)), (1, 4, 3)),
    "padded": (MaxPool((2, 2), (2, 2), ((1, 1), (0, 1)), (1, 1)), (1, 4, 3)),
    "dilated": (MaxPool((2, 2), (1, 1), ((0, 0), (0, 0)), (2, 1)), (1, 4, 3)),
}


def _network(kind):
    if kind in POOLS:
        op, shape = POOLS[kind]
        return chain(shape, op)
    if kind == "sorted pairs":
        return chain((3, 2), Sort())
    builder = Builder((4,))
    inputs = [builder.add(Scale(exact(f), exact(0.0)), 0) for f in (1.0, -1.0, 0.5)][: 2 if "two" in kind else 3]
    builder.add(Extremum("maximum" in kind), *inputs)
    return builder.build()


KINDS = (*POOLS, "sorted pairs", "maximum of two", "minimum of two", "maximum of three", "minimum of three")


def _boxes(rng, network):
    node = network.nodes[-1]
    found = []
    for i in node.inputs:
        shape = network.nodes[i].shape
        low = rng.normal(size=(2, *shape)) * 2.0 ** rng.integers(-20, 20, size=(2, *shape))
        width = np.abs(rng.normal(size=low.shape)) * rng.choice([0.0, 1e-9, 1.0, 2.0**20], size=low.shape)
        found.append((low, low + width))
    return found


def _ends(rng, boxes):
    """Corners of the boxes, and one point inside."""
    for _ in range(6):
        yield [np.where(rng.random(low.shape) < 0.5, low, high) for low, high in boxes]
    yield [np.clip(low + (high - low) * rng.random(low.shape), low, high) for low, high in boxes]


@given(st.sampled_from(KINDS), st.integers(0, 10**6))
@settings(max_examples=120, deadline=None)
def test_functions_are_below_and_above(kind, seed):
    rng, network = np.random.default_rng(seed), _network(kind)
    index, boxes = len(network.nodes) - 1, None
    boxes = _boxes(rng, network)
    parts = selections(network, index, boxes)
    assert parts
    for points in _ends(rng, boxes):
        x = rational(np.concatenate([p.reshape(2, -1) for p in points], axis=1))
        y = rational(evaluate_node(network.nodes[index], points).reshape(2, -1))
        for part in parts:
            values = np.where(part.places[:, None] >= 0, np.moveaxis(x[:, part.places], 1, 0), Fraction(0))
            under = (rational(part.low) * values).sum(axis=0) + rational(part.low_constant[:, 0])
            over = (rational(part.high) * values).sum(axis=0) + rational(part.high_constant[:, 0])
            assert (under <= y[:, part.outputs]).all() and (y[:, part.outputs] <= over).all()


@given(st.sampled_from(KINDS), st.integers(0, 10**6))
@settings(max_examples=80, deadline=None)
def test_functions_sent_back_stay_below(kind, seed):
    """Coefficients with full mantissas that cancel where windows overlap: what is rounded is in the allowance."""
    rng, network = np.random.default_rng(seed), _network(kind)
    index, known = len(network.nodes) - 1, _boxes(rng, network)
    inputs = network.nodes[index].inputs
    a = rng.normal(size=(2, 3, network.nodes[index].size)) * 2.0 ** rng.integers(-20, 20)
    a[..., ::2] *= -1.0 + 2.0**-51
    # the pull alone: nodes before are not passed
    boxes = [known[inputs.index(i)] if i in inputs else (np.zeros(1), np.zeros(1)) for i in range(index)]
    account, back = Account.zero(a), Backward(Steps(network), boxes, {index: selections(network, index, known)})
    found = np.concatenate(back._pull(index, a, account), axis=2)
    for points in _ends(rng, known):
        x = rational(np.concatenate([p.reshape(2, -1) for p in points], axis=1))
        y = rational(evaluate_node(network.nodes[index], points).reshape(2, -1))
        for b, s in product(range(2), range(3)):
            constant = Fraction(account.constant[b, s]) - Fraction(account.allowance[b, s])
            assert (rational(found[b, s]) * x[b]).sum() + constant <= (rational(a[b, s]) * y[b]).sum()


@pytest.mark.parametrize("kind", POOLS)
def test_no_place_comes_twice_in_a_row(kind):
    for row in pool_places(*POOLS[kind]):
        there = row[row >= 0]
        assert len(np.unique(there)) == len(there)


def test_a_candidate_above_all_others_is_the_maximum():
    network = _network("plain")
    low = np.zeros((1, 2, 4, 4))
    low[:, :, ::2, ::2] = 5.0
    (part,) = selections(network, 1, [(low, low + 1.0)])
    assert (part.low == part.high).all() and not part.high_constant.any()
