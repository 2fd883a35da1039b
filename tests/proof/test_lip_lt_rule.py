"""The loop-transformation rule: its recursion against exact and dense oracles, and that no witness is believed."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import lower_bound_by_sampling
from strategies import CHAIN, networks

from lipcert.bounds.lip_lt import LipLt
from lipcert.bounds.norms import certified_norm
from lipcert.errors import InconclusiveError
from lipcert.network.operators import Elementwise
from lipcert.proof.lifted import lift
from lipcert.proof.refusal import Refused
from lipcert.proof.rules.lip_lt import LoopTransformation, as_dense, loop_bound
from lipcert.proof.subject import subject
from lipcert.testing.build import RELU, matrices, mlp

RULE = LoopTransformation()
LEAKY = Elementwise("leaky_relu", (np.array(0.25),))


def witness_for(network, centres):
    """Return a witness with these centres and norms that can be proved."""
    norms = []

    def keep(matrix, spread):
        op = as_dense(matrix)
        norms.append(certified_norm(op, op.weight.shape[1:], op.weight.shape[:1]).value + 2 * spread)
        return norms[-1]

    loop_bound(lift(network), centres, keep)
    return {"centres": np.concatenate(centres), "norms": np.array(norms)}


def dense_recursion(weights, centre, radius):
    """The recursion of the paper on a chain, norms by LAPACK: a second way to the same number, up to its rounding."""
    gains = [1.0]
    for k in range(len(weights)):
        total, path = 0.0, weights[k]
        for j in range(k, -1, -1):
            total += np.linalg.norm(path, 2) * (radius if j else 1.0) * gains[j]
            path = centre * path @ weights[j - 1] if j else path
        gains.append(total)
    return gains[-1]


@pytest.mark.parametrize(("activation", "alpha"), [(RELU, 0.0), (LEAKY, 0.25)])
@pytest.mark.parametrize("widths", [(5, 7, 3), (4, 6, 5, 3), (3, 4, 4, 4, 4, 4, 4, 2)])
def test_the_recursion_against_dense_norms(widths, activation, alpha):
    weights = matrices(300 + len(widths), *widths)
    network = subject(mlp(weights, activation), "output")
    centres = [np.full(n, 0.5 * (1 + alpha)) for n in widths[1:-1]]
    bound = RULE.derive(network, "l2", witness_for(network, centres)).bound
    reference = dense_recursion(weights, 0.5 * (1 + alpha), 0.5 * (1 - alpha))
    assert reference * (1 - 2.0**-40) <= bound <= reference * (1 + 1e-6)


def test_one_neuron_layers_against_fractions():
    """All norms are absolute values, so the theorem's number is a rational; the bound is never below it."""
    rng = np.random.default_rng(5)
    weights = [np.float64(np.float32(rng.normal())) for _ in range(20)]
    network = subject(mlp([np.array([[w]]) for w in weights], LEAKY), "output")
    centre, radius = Fraction(5, 8), Fraction(3, 8)
    gains = [Fraction(1)]
    for k in range(len(weights)):
        total, path = Fraction(0), Fraction(weights[k])
        for j in range(k, -1, -1):
            total += abs(path) * (radius if j else 1) * gains[j]
            path *= centre * Fraction(weights[j - 1]) if j else 1
        gains.append(total)
    bound = RULE.derive(network, "l2", witness_for(network, [np.array([0.625])] * 19)).bound
    assert gains[-1] <= Fraction(bound) <= gains[-1] * (1 + Fraction(1, 10**6))


@settings(max_examples=40, deadline=None)
@given(networks((*CHAIN, "residual", "concat", "conv", "avg_pool"), 4), st.integers(0, 2**32 - 1), st.floats(-3.0, 3.0))
def test_any_centres_give_a_true_bound(network, seed, size):
    normal = subject(network, "output")
    rng = np.random.default_rng(seed)
    try:
        lifted = lift(normal)
        centres = [size * rng.normal(size=n) for n in lifted.sizes[1:]]
        if not centres:
            return
        bound = RULE.derive(normal, "l2", witness_for(normal, centres)).bound
    except Refused:
        return
    assert bound >= lower_bound_by_sampling(network, "l2", rng)


def test_without_centres_the_product_is_left():
    weights = matrices(310, 4, 6, 5, 3)
    network = subject(mlp(weights), "output")
    bound = RULE.derive(network, "l2", witness_for(network, [np.zeros(6), np.zeros(5)])).bound
    product = np.prod([np.linalg.norm(w, 2) for w in weights])
    assert product * (1 - 2.0**-40) <= bound <= product * (1 + 1e-6)


def honest():
    network = subject(mlp(matrices(311, 4, 6, 5, 3)), "output")
    return network, dict(LipLt().propose(network, "l2", None).witness)


def test_every_norm_is_proved():
    network, witness = honest()
    for position in range(len(witness["norms"])):
        norms = witness["norms"].copy()
        norms[position] *= 1 - 1e-6
        with pytest.raises(Refused, match="not proved"):
            RULE.derive(network, "l2", {**witness, "norms": norms})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda w: {"norms": w["norms"]}, "the witness has"),
        (lambda w: {**w, "norms": w["norms"][:-1]}, "fewer norms"),
        (lambda w: {**w, "norms": np.append(w["norms"], 1.0)}, "more norms"),
        (lambda w: {**w, "norms": np.full_like(w["norms"], np.nan)}, "nan"),
        (lambda w: {**w, "norms": np.full_like(w["norms"], np.inf)}, "inf"),
        (lambda w: {**w, "norms": -w["norms"]}, "not negative|below zero"),
        (lambda w: {**w, "norms": w["norms"].astype(np.int64)}, "real numbers"),
        (lambda w: {**w, "centres": w["centres"][:-1]}, "11 finite centres"),
        (lambda w: {**w, "centres": np.full_like(w["centres"], np.nan)}, "11 finite centres"),
        (lambda w: {**w, "centres": w["centres"].astype(np.int64)}, "11 finite centres"),
        (lambda w: {**w, "centres": np.full_like(w["centres"], 1e300)}, "not proved|too large|inf"),
    ],
)
def test_a_bad_witness_is_refused(change, reason):
    network, witness = honest()
    with pytest.raises(Refused, match=reason):
        RULE.derive(network, "l2", change(witness))


def test_other_norms_are_refused():
    network, witness = honest()
    with pytest.raises(Refused, match="for l2"):
        RULE.derive(network, "linf", witness)


def test_no_time_is_said():
    with pytest.raises(InconclusiveError, match="time was over"):
        LipLt().propose(honest()[0], "l2", 0.0)
