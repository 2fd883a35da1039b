"""The tests' own tools: the random networks cover every operator, and the Jacobian oracle is right."""

from __future__ import annotations

import numpy as np
import pytest
import strategies
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import DERIVATIVES, exact_jacobian, lower_bound_by_sampling, operator_norm

from lipcert.network import Builder, Network, evaluate, operators
from lipcert.network.activations import TABLE, slope_interval
from lipcert.network.graph import Node
from lipcert.network.operators import Activation, Affine, Elementwise, Operator


def test_every_operator_and_every_activation_occurs() -> None:
    nodes: list[Node] = [node for seed in range(600) for node in strategies.random_network(seed, 5).nodes]
    kinds = {type(node.op) for node in nodes}
    expected = {
        value
        for value in vars(operators).values()
        if isinstance(value, type) and issubclass(value, Operator) and value not in (Operator, Affine, Activation)
    }
    assert kinds == expected
    assert {node.op.name for node in nodes if isinstance(node.op, Elementwise)} == set(TABLE)
    assert set(strategies.ELEMENTWISE) == set(DERIVATIVES) == set(TABLE)
    assert max(node.size for node in nodes) <= 4 * strategies.LARGEST


def test_networks_are_the_same_for_the_same_seed() -> None:
    one, two = (strategies.random_network(17, 5) for _ in range(2))
    assert one.graph_digest == two.graph_digest
    assert one.weights_digest == two.weights_digest
    assert not all(strategies.random_network(seed).is_exact for seed in range(50))


def quotient(network: Network, x: np.ndarray, step: float) -> np.ndarray:
    """Central differences, one column per input."""
    size = x.size
    moves = step * np.eye(size).reshape(size, *x.shape)
    ahead, behind = evaluate(network, x + moves), evaluate(network, x - moves)
    return ((ahead - behind) / (2 * step)).reshape(size, -1).T


@settings(max_examples=200)
@given(strategies.networks(), st.integers(0, 999))
def test_jacobian_agrees_with_central_differences(network: Network, seed: int) -> None:
    """Away from kinks two steps agree with each other; points where they do not are left out, and rare."""
    rng = np.random.default_rng(seed)
    for _ in range(20):
        x = rng.normal(size=network.input_shape)
        fine, coarse = quotient(network, x, 1e-6), quotient(network, x, 4e-6)
        if np.abs(fine - coarse).max() <= 1e-7 * (1 + np.abs(fine).max()):
            found = exact_jacobian(network, x)
            np.testing.assert_allclose(found, fine, rtol=0, atol=1e-6 * (1 + np.abs(fine).max()))
            return
    pytest.fail("no smooth point was found")


@pytest.mark.parametrize("name", sorted(DERIVATIVES))
def test_derivatives_are_those_of_the_functions(name: str) -> None:
    rng = np.random.default_rng(len(name))
    for _ in range(5):
        op = Elementwise(name, strategies.ELEMENTWISE[name](rng, ()))
        x = np.sort(rng.uniform(-6.0, 6.0, 400))
        slope = DERIVATIVES[name](x, *op.params)
        function, step = TABLE[name].function, 1e-5
        found = (function(x + step, *op.params) - function(x - step, *op.params)) / (2 * step)
        assert np.median(np.abs(found - slope)) < 1e-9
        assert (np.abs(found - slope) < 1e-8).sum() >= len(x) - 4  # a kink may lie within a step
        alpha, beta = slope_interval(op)
        assert (slope >= alpha - 1e-14).all()
        assert (slope <= beta + 1e-14).all()


@given(strategies.networks(), st.integers(0, 999), st.sampled_from(["l1", "l2", "linf"]))
def test_more_samples_never_lower_the_bound(network: Network, seed: int, norm: str) -> None:
    few, many = (lower_bound_by_sampling(network, norm, np.random.default_rng(seed), n) for n in (4, 8))
    assert 0.0 <= few <= many < np.inf


def test_operator_norms_of_a_known_matrix() -> None:
    matrix = np.array([[3.0, 0.0], [-4.0, 0.0], [0.0, 1.0]])
    assert operator_norm(matrix, "l1") == 7.0
    assert operator_norm(matrix, "linf") == 4.0
    assert operator_norm(matrix, "l2") == pytest.approx(5.0)


def test_the_bound_of_an_affine_network_is_its_norm() -> None:
    builder = Builder((5,))
    strategies.BLOCKS["dense"](builder, 0, np.random.default_rng(1))
    network = builder.build()
    weight = network.nodes[-1].op.weight.mid
    for norm in ("l1", "l2", "linf"):
        lower = lower_bound_by_sampling(network, norm, np.random.default_rng(2))
        assert lower == pytest.approx(operator_norm(weight, norm), rel=1e-11)
        assert lower < operator_norm(weight, norm)
