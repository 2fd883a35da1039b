"""What the Lipschitz constant of a small network is at least, and exactly where its linear regions can be counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np

from lipcert.network.enclosure import Enclosure, Float
from lipcert.network.evaluate import evaluate_nodes
from lipcert.network.graph import Network, Node
from lipcert.network.operators import Activation, Elementwise, Scale
from lipcert.proof.claims import Norm
from lipcert.testing.jacobian import exact_jacobian, operator_norm

POINTS = 48
COUNTABLE = 8  # neurons whose 2^n activation patterns are all tried
MARGIN = 1e-7  # relative distance from every kink that a point of a region has
SLACK = 2.0**-40  # relative; far above the rounding errors of Jacobians of networks this small


def lower_bound(norm: Norm, jacobians: list[Float]) -> float:
    """Return the largest norm of some Jacobians, lowered by their rounding errors: a true lower bound."""
    return max(operator_norm(jacobian, norm) for jacobian in jacobians) * (1.0 - SLACK)


def jacobians_of(network: Network, seed: int = 0) -> list[Float]:
    """Return Jacobians (out_size, in_size) at random points, and in every linear region where they can be counted.

    With all regions the largest norm is the Lipschitz constant itself: a piecewise linear function has no other
    slopes.
    """
    rng = np.random.default_rng(seed)
    scales = (0.1, 1.0, 1.0, 5.0)
    points = [rng.normal(size=network.input_shape) * scales[i % len(scales)] for i in range(POINTS)]
    if is_countable(network):
        points.extend(region_points(network))
    return [exact_jacobian(network, x) for x in points]


def is_countable(network: Network) -> bool:
    """Whether all activations are ReLU or leaky ReLU, and few."""
    ops = [node.op for node in network.nodes if isinstance(node.op, Activation)]
    piecewise = all(isinstance(op, Elementwise) and op.name in ("relu", "leaky_relu") for op in ops)
    return piecewise and 0 < network.hidden_neurons <= COUNTABLE


def region_points(network: Network) -> Iterator[Float]:
    """Yield a point inside each linear region of a countable network.

    For each pattern of active and inactive neurons the network is affine, so that its region is a polyhedron; a
    linear program finds the point in it that is farthest from all kinks. Regions without such a point are left out.
    """
    neurons = [node for node in network.nodes if isinstance(node.op, Elementwise)]
    for pattern in product((1.0, -1.0), repeat=network.hidden_neurons):
        signs = np.array(pattern)
        offsets, slopes = _affine_forms(_with_pattern(network, signs), [node.inputs[0] for node in neurons])
        point = _inside(signs[:, None] * slopes, signs * offsets)
        if point is not None:
            yield point.reshape(network.input_shape)


def _with_pattern(network: Network, signs: Float) -> Network:
    """Return the affine network in which each neuron has the slope of its sign."""
    nodes: list[Node] = []
    used = 0
    for node in network.nodes:
        if isinstance(node.op, Elementwise):
            part = signs[used : used + node.size].reshape(node.shape)
            used += node.size
            inactive = node.op.params[0] if node.op.name == "leaky_relu" else np.zeros(())
            factor = Enclosure(np.where(part > 0, 1.0, inactive))
            node = replace(node, op=Scale(factor, Enclosure(np.zeros(()))))
        nodes.append(node)
    return replace(network, nodes=tuple(nodes))


def _affine_forms(network: Network, wanted: list[int]) -> tuple[Float, Float]:
    """Return (n,) offsets and (n, in_size) slopes of some nodes of an affine network."""
    size = network.nodes[0].size
    basis = np.vstack([np.zeros(size), np.eye(size)]).reshape(size + 1, *network.input_shape)
    values = evaluate_nodes(network, basis)
    rows = np.concatenate([values[i].reshape(size + 1, -1) for i in wanted], axis=1)
    return rows[0], (rows[1:] - rows[0]).T


def _inside(slopes: Float, offsets: Float, box: float = 1e3) -> Float | None:
    """Return x with slopes x + offsets > 0 in every row, as large as possible relative to the row, or None."""
    from scipy.optimize import linprog

    size = np.abs(slopes).sum(axis=1) + np.abs(offsets)
    slopes, offsets, size = slopes[size > 0], offsets[size > 0], size[size > 0]  # others are dead
    rows = np.hstack([-slopes / size[:, None], np.ones((len(size), 1))])
    goal = np.append(np.zeros(slopes.shape[1]), -1.0)
    bounds = [(-box, box)] * slopes.shape[1] + [(None, 1.0)]
    found = linprog(goal, A_ub=rows, b_ub=offsets / size, bounds=bounds)
    return found.x[:-1] if found.success and found.x[-1] > MARGIN else None
