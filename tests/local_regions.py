"""Points of the regions that local bounds speak of."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch
from rational_evaluation import margins, rational

from lipcert.proof.local import Evaluator
from lipcert.proof.refusal import Refused
from lipcert.testing.zoo import zoo

ROUNDING = 1e-11  # of float64 computations on networks of a few layers, relative to the numbers that occur in them


def evaluator_of(network):
    """The evaluator of a network with margins; None where it takes none or there are none."""
    try:
        evaluator = Evaluator(network)
    except Refused:
        return None
    return evaluator if network.nodes[-1].size > 1 else None


def served():
    """Evaluators of the networks of the zoo, by name, where there are some."""
    found = {name: evaluator_of(network) for name, network in zoo().items()}
    return {name: evaluator for name, evaluator in found.items() if evaluator is not None}


def random_samples(network, seed):
    """Two samples of a network, their labels, and the generator that drew them."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-1.0, 1.0, (2, *network.input_shape)), rng.integers(0, network.nodes[-1].size, 2), rng


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


def rational_points(x, eps, rng, count=6, norm="l2", box=None):
    """Points (N, *shape) of the balls around x, as Fractions: the centres, and some along axes and in directions."""
    points = [rational(x)]
    for k in range(count):
        step = rng.normal(size=(len(x), x[0].size))
        if norm == "linf":
            step = np.sign(step)
        elif k % 2 or norm == "l1":
            step = np.eye(x[0].size)[rng.integers(0, x[0].size, len(x))] * rng.choice([-1.0, 1.0])
        else:
            step = np.round(step / np.linalg.norm(step, axis=1, keepdims=True) * (1 - 1e-9) * 2.0**40) * 2.0**-40
            assert all(sum(Fraction(s) ** 2 for s in row) <= 1 for row in step)
        point = rational(x) + Fraction(eps) * rational(step.reshape(x.shape))
        points.append(point if box is None else np.clip(point, *map(Fraction, box)))
    return points


def assert_below_margins(network, labels, found, points):
    """Bounds (N, classes) are not above the margins at points, whatever numbers inside its enclosures a network has."""
    rest = np.isfinite(found)
    for point in points:
        for sign in (0, 1, -1):
            assert (rational(found[rest]) <= margins(network, point, labels, sign)[rest]).all()
