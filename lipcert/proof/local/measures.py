r"""How far nodes move when the input moves from the sample: weighted l2 norms, node by node, every rounding counted.

Let dx be the difference of an input of the region from the sample, and dh that of a node. *Moves* of a node are v >= 0
and L with dh_i^2 = v_i e_i^2 and |e| <= L |dx|: entries with v_i = 0 are constant. The *measure* of weights w is a
bound of (sum_i w_i dh_i^2)^(1/2) / |dx|. With S the largest |secant| from the sample (`secants`), elementwise
activations satisfy |dv_i| <= S_i |dz_i|, so v = S and L = the measure of S before the activation; and an affine node A
behind it has measure(w) <= ||diag(w)^(1/2) A diag(v)^(1/2)|| L. For slopes 0 and 1 these are the masks of Huang et al.
(2021): the rows and columns of constant neurons are dropped.

What copies entries passes weights through: see `choices`. An index map: an input's weight is the sum of those of its
copies; `Scale`: times the squared factor. Both grow with w and v, so upper bounds of them serve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lipcert.network.enclosure import Float, round_up
from lipcert.network.operators import Affine, Concat, Elementwise, Gather, Input, Reshape, Scale, Sum
from lipcert.proof.local.affine import AffineStep, Box
from lipcert.proof.local.arithmetic import over
from lipcert.proof.local.boxes import Steps
from lipcert.proof.local.choices import weights_before
from lipcert.proof.local.masked_norms import flat_max, masked_norm, root, times
from lipcert.proof.local.secants import Sector


@dataclass(frozen=True, eq=False)
class Moves:
    """v, (B, *shape), and L, (B,), of a node; see the module."""

    spread: Float
    length: Float


class Measures:
    """Measures of all nodes; what it is given may still grow, in node order.

    Args of the constructor:
        steps: the network.
        norms: upper bounds of the l2 norms of some affine nodes.
        boxes: of the nodes so far, (B, *shape) each.
        sectors: of the elementwise nodes so far, seen from the sample.
    """

    def __init__(
        self, steps: Steps, norms: Mapping[int, float], boxes: Sequence[Box], sectors: Mapping[int, Sector]
    ) -> None:
        self._steps, self._norms, self._boxes, self._sectors = steps, norms, boxes, sectors
        self._moves: dict[int, Moves] = {}

    def moves(self, index: int) -> Moves:
        """Return how a node moves; computed once."""
        if index not in self._moves:
            self._moves[index] = self._find(index)
        return self._moves[index]

    def measure(self, index: int, weights: Float) -> Float:
        """Return (B,) upper bounds of the weighted norm of a node's difference per unit of |dx|.

        weights: (B, *shape), not negative.
        """
        node = self._steps.nodes[index]
        match node.op:
            case Input():
                return root(flat_max(weights))
            case Affine():
                return self._behind_affine(node.op, self._steps.affine[index], index, weights)
            case Sum():
                parts = np.stack([self.measure(i, weights) for i in node.inputs])
                return np.where((parts == 0).all(axis=0), 0.0, over(parts.sum(axis=0), len(parts)))
            case Concat():
                sizes = [self._steps.nodes[i].shape[node.op.axis] for i in node.inputs]
                cuts = np.cumsum(sizes)[:-1].tolist()
                return self._joined(node.inputs, np.split(weights, cuts, axis=node.op.axis + 1))
            case Elementwise():
                found = self.moves(index)
                return times(root(flat_max(times(weights, found.spread))), found.length)
            case _:
                shapes, boxes = [self._steps.nodes[i].shape for i in node.inputs], [self._boxes[i] for i in node.inputs]
                return self._joined(node.inputs, weights_before(node, shapes, boxes, weights))

    def _behind_affine(self, op: Affine, step: AffineStep, index: int, weights: Float) -> Float:
        source = self._steps.nodes[index].inputs[0]
        match op:
            case Reshape() | Gather():
                return self.measure(source, _summed(step, weights))
            case Scale():
                return self.measure(source, step.squared(weights))
            case _:
                before = self.moves(source)
                return times(masked_norm(step, weights, before.spread, self._norms.get(index, np.inf)), before.length)

    def _find(self, index: int) -> Moves:
        node = self._steps.nodes[index]
        match node.op:
            case Elementwise():
                sector = self._sectors[index]
                size = np.abs(sector.middle)
                slope = np.where(sector.radius == 0, size, round_up(size + sector.radius, 2))
                return Moves(slope, self.measure(node.inputs[0], slope))
            case Reshape() | Gather():
                before, step = self.moves(node.inputs[0]), self._steps.affine[index]
                copies = np.full(len(before.length), np.sqrt(float(step.terms)))
                moved = step.box(before.spread, before.spread)[0]  # copies, exactly
                return Moves(moved, before.length if step.terms <= 1 else times(before.length, round_up(copies, 1)))
            case Scale():
                before = self.moves(node.inputs[0])
                return Moves(self._steps.affine[index].squared(before.spread), before.length)
            case Concat():
                parts = [self.moves(i) for i in node.inputs]
                lengths = np.stack([part.length for part in parts])
                return Moves(np.concatenate([part.spread for part in parts], axis=node.op.axis + 1), _length(lengths))
            case _:
                ones = np.ones_like(self._boxes[index][0])
                return Moves(ones, self.measure(index, ones))

    def _joined(self, nodes: Sequence[int], weights: Sequence[Float]) -> Float:
        """Return the measure of several nodes side by side."""
        parts = [self.measure(i, w) for i, w in zip(nodes, weights, strict=True)]
        return parts[0] if len(parts) == 1 else _length(np.stack(parts))


def _length(parts: Float) -> Float:
    """Return upper bounds of the roots of sums of squares along the first axis, zero where all are zero."""
    largest = parts.max(axis=0)
    safe = np.where(largest > 0, largest, 1.0)
    squares = over(np.square(over(parts / safe, 1)).sum(axis=0), len(parts) + 1)
    return np.where(largest == 0, 0.0, times(largest, root(squares)))


def _summed(step: AffineStep, weights: Float) -> Float:
    """Return upper bounds of the sums of the weights of an entry's copies, zero where all are zero."""
    sums = step.adjoint(weights.reshape(len(weights), 1, -1)).reshape(len(weights), *step.source)
    return sums if step.terms <= 1 else np.where(sums == 0, 0.0, over(sums, step.terms))
