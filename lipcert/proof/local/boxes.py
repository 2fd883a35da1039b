"""Verified boxes of all nodes by interval propagation.

Affine nodes: see `affine`; what their rows say besides: `surroundings`. Maxima, sorting and index maps are monotone in
every input and do not round.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from lipcert.network.enclosure import Float, gamma, round_up
from lipcert.network.evaluate import evaluate_node
from lipcert.network.graph import Network
from lipcert.network.operators import Affine, Concat, Elementwise, Extremum, MaxPool, Reshape, Sort, Sum
from lipcert.proof.local.affine import AffineStep, Box
from lipcert.proof.local.arithmetic import above, below
from lipcert.proof.local.costs import Costs
from lipcert.proof.local.curved import has_lines, value_range
from lipcert.proof.refusal import Refused


class Steps:
    """A network, its affine nodes prepared.

    Args of the constructor:
        network: any; usually a normal form.

    Attributes:
        network, nodes: the network and its nodes.
        affine: of each affine node, by index.

    Raises:
        Refused: a node has no verified local rule; the first one is named.
    """

    def __init__(self, network: Network) -> None:
        self.network, self.nodes = network, network.nodes
        for node in self.nodes[1:]:
            known = isinstance(node.op, (Affine, Sum, Concat, Sort, MaxPool, Extremum))
            if not known and not (isinstance(node.op, Elementwise) and has_lines(node.op)):
                raise Refused(f"there is no verified local bound of {node.op.kind} (at '{node.name}')")
        self.affine = {
            index: AffineStep(node, self.nodes[node.inputs[0]].shape) for index, node in network.affine_nodes()
        }

    @cached_property
    def costs(self) -> Costs:
        """What it costs to send linear functions through the network."""
        return Costs(self.network)

    def behind_reshapes(self, index: int) -> int:
        """Return the nearest node, at or before this one, that is no reshape."""
        while isinstance(self.nodes[index].op, Reshape):
            index = self.nodes[index].inputs[0]
        return index

    def is_first(self, index: int) -> bool:
        """Whether a node is an affine map of the input, reshaped or not."""
        node = self.nodes[index]
        return isinstance(node.op, Affine) and self.behind_reshapes(node.inputs[0]) == 0


def taken(boxes: Sequence[Box], rows: slice | npt.NDArray[np.int64]) -> list[Box]:
    """Return boxes (B, *shape) of all nodes for some of the rows."""
    return [(low[rows], high[rows]) for low, high in boxes]


def inside(box: Box, other: Box) -> Box:
    """Return where two boxes meet; its ends are crossed where they do not."""
    return np.maximum(box[0], other[0]), np.minimum(box[1], other[1])


def propagate(steps: Steps, index: int, inputs: list[Box]) -> Box:
    """Return the box of a node from those of its inputs."""
    node = steps.nodes[index]
    op = node.op
    match op:
        case Affine():
            return steps.affine[index].box(*inputs[0])
        case Elementwise():
            return value_range(op, *inputs[0])
        case Sum():
            ends = [box if sign > 0 else (-box[1], -box[0]) for sign, box in zip(op.signs, inputs, strict=True)]
            lows, highs = (np.stack([box[side] for box in ends]) for side in (0, 1))
            return below(lows.sum(axis=0), _sum_error(lows)), above(highs.sum(axis=0), _sum_error(highs))
        case _:
            return evaluate_node(node, [box[0] for box in inputs]), evaluate_node(node, [box[1] for box in inputs])


def _sum_error(terms: Float) -> Float:
    """Return how far the float64 sums along the first axis may be from the sums; no sum underflows."""
    size = np.abs(terms).sum(axis=0)
    return np.where(size == 0, 0.0, round_up(gamma(2 * len(terms)) * size, 4))
