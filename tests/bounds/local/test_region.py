"""Least values of linear functions on balls and boxes, against a convex solver's own optimum and dense sampling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lipcert.bounds.local.region import Ball
from lipcert.errors import UsageError


def _least_by_bisection(c, x0, eps, box):
    """min c.x over ||x - x0|| <= eps and the box, from its optimality conditions: d = clip(-t c), t by bisection."""
    low, high = box[0] - x0, box[1] - x0

    def step(t):
        return np.clip(-t * c, low, high)

    t_low, t_high = 0.0, 1e12
    if np.linalg.norm(step(t_high)) <= eps:
        return c @ (x0 + step(t_high))
    for _ in range(300):
        middle = (t_low + t_high) / 2
        t_low, t_high = (middle, t_high) if np.linalg.norm(step(middle)) <= eps else (t_low, middle)
    return c @ (x0 + step(t_low))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.sampled_from([1e-3, 0.1, 0.5, 3.0]))
def test_l2_ball_and_box_bound_is_below_the_optimum_and_close(seed, size, eps):
    rng = np.random.default_rng(seed)
    x0 = np.clip(rng.normal(0.3, 0.6, size=(2, size)), 0.0, 1.0)  # many on the walls
    c = rng.normal(size=(2, 3, size)) * rng.choice([0.0, 1.0, 10.0], size=(2, 3, size))
    ball = Ball.around(torch.from_numpy(x0), eps, "l2", (0.0, 1.0))
    found = ball.minimum(torch.from_numpy(c)).numpy()
    free = Ball.around(torch.from_numpy(x0), eps, "l2").minimum(torch.from_numpy(c)).numpy()
    for b in range(2):
        for s in range(3):
            best = _least_by_bisection(c[b, s], x0[b], eps, (0.0, 1.0))
            room = 1e-12 * (1.0 + np.abs(c[b, s]).sum())
            assert found[b, s] <= best + room
            reach = eps * np.linalg.norm(c[b, s])
            assert found[b, s] >= best - 0.02 * reach - room
            assert found[b, s] >= free[b, s] - room


@pytest.mark.parametrize(("norm", "dual"), [("l1", np.inf), ("l2", 2), ("linf", 1)])
def test_least_values_on_balls_are_those_of_the_dual_norm(norm, dual):
    rng = np.random.default_rng(0)
    x0, c, eps = rng.normal(size=(4, 7)), rng.normal(size=(4, 5, 7)), rng.uniform(0.1, 2.0, size=4)
    found = Ball.around(torch.from_numpy(x0), torch.from_numpy(eps), norm).minimum(torch.from_numpy(c)).numpy()
    exact = np.einsum("bsn,bn->bs", c, x0) - eps[:, None] * np.linalg.norm(c, ord=dual, axis=2)
    np.testing.assert_allclose(found, exact, rtol=1e-12, atol=1e-12)


def test_gradients_through_the_split_are_finite():
    x0 = torch.zeros((1, 4), dtype=torch.float64)
    c = torch.tensor([[[0.0, 1.0, -2.0, 3.0]]], dtype=torch.float64, requires_grad=True)
    Ball.around(x0, 0.5, "l2", (0.0, 1.0)).minimum(c).sum().backward()
    assert bool(torch.isfinite(c.grad).all())


@pytest.mark.parametrize(
    ("eps", "norm", "box"),
    [(0.0, "l2", None), (-1.0, "l2", None), (np.nan, "l2", None), (1.0, "l3", None), (1.0, "l2", (1.0, 0.0))],
)
def test_what_is_no_region_is_refused(eps, norm, box):
    with pytest.raises(UsageError):
        Ball.around(torch.zeros((1, 2)), eps, norm, box)
