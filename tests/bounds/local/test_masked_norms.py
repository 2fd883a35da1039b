"""Norms of weighted maps are never below the singular values of the dense matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import networks

from lipcert.bounds.local import masked_norms
from lipcert.bounds.local.choices import positions, winners
from lipcert.bounds.local.masked_norms import masked_norm, matrix_norms
from lipcert.bounds.local.pruned import local_constant
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.view import View
from lipcert.network.linear import dense_matrix
from lipcert.testing.build import matrices, mlp

SVD_ROUNDING = 1e-14  # of numpy's singular values


def _weights(rng, *shape):
    return rng.choice([0.0, 1.0, rng.uniform()], size=shape, p=[0.4, 0.4, 0.2])


@pytest.mark.parametrize("small", [0, 512])
@settings(max_examples=60, deadline=None)
@given(networks(("dense", "conv", "conv_transpose", "avg_pool", "scale"), max_depth=3), st.integers(0, 2**16))
def test_masked_norms_are_at_least_the_svd(small, network, seed):
    view, rng = View(network, dtype=torch.float64), np.random.default_rng(seed)
    before, masked_norms.SMALL = masked_norms.SMALL, small  # 0: the bounds that serve large layers, alone
    try:
        for index in view.maps:
            left = _weights(rng, 3, *view.nodes[index].shape)
            right = _weights(rng, 3, *view.maps[index].source)
            found = masked_norm(view, index, torch.from_numpy(left), torch.from_numpy(right)).numpy()
            a = dense_matrix(view.nodes[index].op, view.maps[index].source, view.nodes[index].shape)
            weighted = np.sqrt(left.reshape(3, -1, 1)) * a * np.sqrt(right.reshape(3, 1, -1))
            exact = np.linalg.norm(weighted, ord=2, axis=(1, 2))
            assert (found >= exact * (1.0 - SVD_ROUNDING)).all(), (found, exact)
            assert (found <= view.operator_norm(index)).all()
            if small:
                assert (found <= exact * (1.0 + 1e-5) + 1e-9).all()
    finally:
        masked_norms.SMALL = before


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (40, 40), (1, 1)])
def test_matrix_norms_are_at_least_the_svd(shape):
    matrix = np.random.default_rng(3).normal(size=(50, *shape))
    exact = np.linalg.norm(matrix, ord=2, axis=(1, 2))
    found = matrix_norms(torch.from_numpy(matrix)).numpy()
    assert (found >= exact).all() and (found <= exact * (1.0 + 1e-10)).all()


def test_norms_of_what_is_not_finite_are_infinite():
    matrix = torch.ones((3, 2, 2), dtype=torch.float64)
    matrix[1, 0, 0], matrix[2, 1, 1] = torch.nan, torch.inf
    assert torch.isfinite(matrix_norms(matrix)).tolist() == [True, False, False]


def test_gradients_flow_to_weights():
    view = View(mlp(matrices(3, 4, 6, 3)), dtype=torch.float64)
    left = torch.rand((2, 6), dtype=torch.float64, requires_grad=True)
    right = torch.ones((2, 4), dtype=torch.float64)
    masked_norm(view, next(iter(view.maps)), left, right).sum().backward()
    assert left.grad is not None and bool(torch.isfinite(left.grad).all()) and bool((left.grad >= 0).all())
    assert bool((left.grad > 0).any())


def test_gradients_flow_to_the_radius_and_the_sample():
    """A smooth network: a larger ball has a larger constant, at a finite rate."""
    from lipcert.network.operators import Elementwise

    view = View(mlp(matrices(3, 4, 6, 3), Elementwise("tanh")), dtype=torch.float64)
    eps = torch.full((2,), 0.3, dtype=torch.float64, requires_grad=True)
    images = torch.rand((2, 4), dtype=torch.float64, requires_grad=True)
    local_constant(view, Ball.around(images, eps, "l2")).sum().backward()
    assert eps.grad is not None and bool((eps.grad > 0).all())
    assert images.grad is not None and bool(torch.isfinite(images.grad).all()) and bool((images.grad != 0).any())


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**16), st.integers(2, 5))
def test_positions_and_winners_hold_for_all_points_of_a_box(seed, size):
    rng = np.random.default_rng(seed)
    ends = np.sort(np.round(rng.normal(size=(2, 3, size)), 1), axis=0)  # rounded: ties occur
    low, high = (torch.from_numpy(end) for end in ends)
    allowed = positions(low, high)
    candidates = torch.arange(size)[:, None]
    most, least = (winners(candidates, low, high, sign)[..., 0] for sign in (1, -1))
    for _ in range(60):
        x = low + (high - low) * torch.from_numpy(rng.choice([0.0, 1.0, 0.5], size=(3, size)))
        order = x.argsort(dim=1)
        place = order.argsort(dim=1)
        assert bool(allowed.gather(2, place[..., None]).all())
        assert bool(most.gather(1, order[:, -1:]).all()) and bool(least.gather(1, order[:, :1]).all())
