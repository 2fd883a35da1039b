"""Points of the regions that local bounds speak of."""

from __future__ import annotations

import numpy as np
import torch

ROUNDING = 1e-11  # of float64 computations on networks of a few layers, relative to the numbers that occur in them


def points_inside(ball, seed, count=40):
    """(count, B, *shape) points of the region: on its border, inside, and towards its corners."""
    rng = np.random.default_rng(seed)
    centre = ball.centre.numpy()
    steps = rng.normal(size=(count, *centre.shape)) * rng.choice([1.0, 0.0], size=(count, *centre.shape), p=[0.7, 0.3])
    flat = steps.reshape(count, len(centre), -1)
    if ball.norm == "linf":
        flat = np.sign(flat)
    order = {"l1": 1, "l2": 2, "linf": np.inf}[ball.norm]
    sizes = np.linalg.norm(flat, ord=order, axis=2, keepdims=True)
    radius = ball.eps.numpy()[:, None] * rng.choice([1.0, 0.5], size=(count, 1, 1)) * (1.0 - 2.0**-40)
    moved = (flat / np.maximum(sizes, 1e-300) * radius).reshape(steps.shape) + centre
    if ball.box is not None:  # the projection onto the box brings no point farther from the centre, which is inside
        moved = np.clip(moved, *ball.box)
    return torch.from_numpy(moved)
