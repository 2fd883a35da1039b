"""One layer of a chain: covariance bounds against dense Schur complements, and multipliers from caps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipcert.bounds.chain import ROOM, chain_of, inverse_of, layer_gain, obstacle, propagate
from lipcert.bounds.registry import find_method
from lipcert.network.operators import Elementwise, Softmax
from lipcert.proof.lifted import lift
from lipcert.proof.subject import subject
from lipcert.testing.build import RELU, chain, conv, matrices, mlp
from lipcert.testing.conformance import bound_of
from lipcert.testing.zoo import zoo

SEEDS = st.integers(0, 9999)


def layer(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return P > 0, W and slope intervals, some of them degenerate."""
    rng = np.random.default_rng(seed)
    n, m = rng.integers(1, 7, 2)
    root = rng.normal(size=(n, n + 1))
    alpha = rng.choice([-1.0, -0.5, 0.0, 0.01, 1.0], m)
    beta = np.maximum(alpha, rng.choice([-1.0, 0.25, 1.0, 1.0, 3.0], m))
    return root @ root.T, rng.normal(size=(m, n)), alpha, beta


@given(SEEDS)
def test_propagation_is_elimination(seed: int) -> None:
    """P is the inverse of the Schur complement of [[P0^-1 + 2 W'L A B W, -W'L(A+B)], [., 2L]] onto v."""
    before, weight, alpha, beta = layer(seed)
    gain = layer_gain(before, weight)
    inverse = 1.2 * inverse_of(np.full(len(gain), np.linalg.eigvalsh(gain)[-1]), alpha, beta) + 0.01
    lam = np.diag(0.5 / inverse)
    top = np.linalg.inv(before) + 2 * weight.T @ lam @ np.diag(alpha * beta) @ weight
    crossing = lam @ np.diag(alpha + beta) @ weight
    schur = 2 * lam - crossing @ np.linalg.inv(top) @ crossing.T
    found = propagate(gain, inverse, alpha, beta)
    np.testing.assert_allclose(found @ schur, np.eye(len(gain)), atol=1e-6)


@given(SEEDS, st.booleans())
def test_caps_lose_nothing_but_themselves(seed: int, rows: bool) -> None:
    """diag(c) - R S R > 0, and P <= (b^2 + ROOM w^2) D, for the norm and for row sums as caps."""
    before, weight, alpha, beta = layer(seed)
    gain = layer_gain(before, weight)
    cap = np.abs(gain).sum(axis=1) if rows else np.full(len(gain), np.linalg.eigvalsh(gain)[-1])
    inverse = inverse_of(cap, alpha, beta)
    radius, slope = 0.5 * (beta - alpha), np.maximum(np.abs(alpha), np.abs(beta))
    inner = np.diag(inverse) - radius[:, None] * gain * radius
    assert np.linalg.eigvalsh(inner)[0] > 0
    limit = (slope**2 + ROOM * (slope.max() or 1.0) ** 2) * np.maximum(cap, ROOM * cap.max())
    excess = propagate(gain, inverse, alpha, beta) - np.diag(limit)
    assert np.linalg.eigvalsh(excess)[-1] <= 1e-6 * limit.max()


def test_caps_of_dead_and_constant_layers_are_positive() -> None:
    zeros, ones = np.zeros(3), np.ones(3)
    for cap, alpha, beta in ((zeros, zeros, ones), (ones, zeros, zeros), (np.array([1.0, 0.0, 2.0]), zeros, ones)):
        inverse = inverse_of(cap, alpha, beta)
        assert (inverse > 0).all()
        assert np.isfinite(0.5 / inverse).all()


def test_neurons_of_different_slopes_keep_their_own() -> None:
    """A linear neuron beside a ReLU costs its gain, not one and a half of it; its proof needs some room."""
    slopes = Elementwise("leaky_relu", (np.array([1.0, 0.0]),))
    network = mlp([np.eye(2), np.eye(2), np.eye(2)], slopes)
    for name in ("eclipse-fast", "gershgorin"):
        found = bound_of(find_method(name), network, "l2")
        assert found is not None
        assert 1.0 <= found.bound <= 1.0 + 1e-4


def test_chains_are_read_off_the_lifted_form() -> None:
    weights = matrices(1, 3, 4, 2)
    found = chain_of(lift(subject(mlp(weights), "output")))
    np.testing.assert_array_equal(found.weights[0], weights[0])
    np.testing.assert_array_equal(found.last, weights[1])
    with pytest.raises(ValueError, match="not a chain"):
        chain_of(lift(subject(zoo()["residual x + g(x)"], "output")))


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (zoo()["MaxMin"], "not elementwise"),
        (zoo()["residual x + g(x)"], "joins branches|more than once"),
        (zoo()["affine"], "no elementwise"),
        (mlp(matrices(1, 3, 4, 2), Elementwise("leaky_relu", (np.array(1.0),))), "not linear"),
        (chain((20_000,), RELU), "too large"),
        (chain((3,), RELU, Softmax(0)), "not elementwise"),
        (chain((1, 2), RELU, conv(1, (1, 1, 2), padding=((2, 2),), dilation=2, circular=True), RELU), "wraps"),
    ],
)
def test_obstacles(network: object, reason: str) -> None:
    normal = subject(network, "output")  # type: ignore[arg-type]
    found = obstacle(normal)
    assert found is not None
    assert any(part in found for part in reason.split("|"))
