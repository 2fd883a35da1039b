r"""How far nodes move when the input moves within a region: weighted l2 norms, node by node.

For two inputs of the region that differ by dx, let dh be the difference of a node. *Moves* of a node are v >= 0 and L
with dh_i^2 = v_i e_i^2 and ||e|| <= L ||dx||: entries with v_i = 0 are constant. The *measure* of weights w is a
bound of (sum_i w_i dh_i^2)^(1/2) / ||dx||. With S the largest |slope| on the region, activations satisfy
|dh_i| <= S_i |dz_i|, so v = S and L = the measure of S before the activation; and an affine node A behind it has
measure(w) <= ||diag(w)^(1/2) A diag(v)^(1/2)|| L. For slopes 0 and 1 these are the masks of Huang et al. (2021): the
rows and columns of constant neurons are dropped.

What copies entries passes weights through, entry by entry:

* index maps: an input's weight is the sum of those of its copies; `Scale`: times the squared factor;
* sorting: input i stands at one of the positions that its box allows; its weight is the largest of theirs. The
  Jacobian is a mean of such permutations, and the norm is convex;
* maxima: each output is a mean of differences of inputs that may win, and |.|^2 is convex; so an input's weight is the
  sum over the outputs that it may be.

Level: numerical.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lipcert.bounds.local.choices import positions, spread_back, winners
from lipcert.bounds.local.masked_norms import masked_norm, root
from lipcert.bounds.local.relaxations import Box
from lipcert.bounds.local.sectors import Sector
from lipcert.bounds.local.selections import join, pool_candidates, stacked_candidates
from lipcert.bounds.local.view import View
from lipcert.network.operators import (
    Affine,
    Concat,
    Elementwise,
    Extremum,
    Gather,
    Input,
    MaxPool,
    Reshape,
    Scale,
    Softmax,
    Sort,
    Sum,
)
from lipcert.proof.rules.composition import activation_factor


@dataclass(frozen=True)
class Moves:
    """v, (B, *shape), and L, (B,), of a node; see above."""

    spread: Tensor
    length: Tensor


class Reaches:
    """Measures of all nodes; what it is given may still grow, in node order.

    Args of the constructor:
        view: the network.
        boxes: of the nodes so far.
        sectors: of the elementwise nodes so far.
    """

    def __init__(self, view: View, boxes: Sequence[Box], sectors: Mapping[int, Sector]) -> None:
        self._view, self._boxes, self._sectors = view, boxes, sectors
        self._moves: dict[int, Moves] = {}

    def moves(self, index: int) -> Moves:
        """Return how a node moves; computed once."""
        if index not in self._moves:
            self._moves[index] = self._find(index)
        return self._moves[index]

    def measure(self, index: int, weights: Tensor) -> Tensor:
        """Return (B,) bounds of the weighted norm of a node's difference per unit of ||dx||; weights: (B, *shape)."""
        node = self._view.nodes[index]
        match node.op:
            case Input():
                return root(_largest(weights))
            case Reshape() | Gather():
                return self.measure(node.inputs[0], self._view.maps[index].adjoint(weights))
            case Scale():
                adjoint = self._view.maps[index].adjoint
                return self.measure(node.inputs[0], adjoint(adjoint(weights)))
            case Affine():
                before = self.moves(node.inputs[0])
                return masked_norm(self._view, index, weights, before.spread) * before.length
            case Sum():
                return torch.stack([self.measure(i, weights) for i in node.inputs]).sum(dim=0)
            case Concat():
                sizes = [self._view.nodes[i].shape[node.op.axis] for i in node.inputs]
                return self._joined(node.inputs, torch.split(weights, sizes, dim=node.op.axis + 1))
            case Elementwise():
                found = self.moves(index)
                return root(_largest(weights * found.spread)) * found.length
            case _:
                return self._chosen(index, weights)

    def _find(self, index: int) -> Moves:
        node = self._view.nodes[index]
        match node.op:
            case Elementwise():
                sector = self._sectors[index]
                slope = torch.maximum(sector.alpha.abs(), sector.beta.abs())
                return Moves(slope, self.measure(node.inputs[0], slope))
            case Reshape() | Gather():
                before, linear = self.moves(node.inputs[0]), self._view.maps[index]
                copies = linear.adjoint(before.spread.new_ones((1, *node.shape))).amax()
                return Moves(linear.apply(before.spread), before.length * copies.sqrt())
            case Scale():
                before, apply = self.moves(node.inputs[0]), self._view.maps[index].apply
                return Moves(apply(apply(before.spread)), before.length)
            case Concat():
                parts = [self.moves(i) for i in node.inputs]
                length = root(torch.stack([part.length.square() for part in parts]).sum(dim=0))
                return Moves(torch.cat([part.spread for part in parts], dim=node.op.axis + 1), length)
            case _:
                ones = torch.ones_like(self._boxes[index][0])
                return Moves(ones, self.measure(index, ones))

    def _joined(self, nodes: Sequence[int], weights: Sequence[Tensor]) -> Tensor:
        """Return the measure of several nodes side by side."""
        parts = [self.measure(i, w).square() for i, w in zip(nodes, weights, strict=True)]
        return root(torch.stack(parts).sum(dim=0))

    def _chosen(self, index: int, weights: Tensor) -> Tensor:
        """Return the measure of a node whose outputs are copies of inputs, or of a softmax."""
        node, view = self._view.nodes[index], self._view
        boxes = [self._boxes[i] for i in node.inputs]
        source, shapes = node.inputs[0], [view.nodes[i].shape for i in node.inputs]
        match node.op:
            case Sort():
                allowed = positions(*boxes[0])
                return self.measure(source, torch.where(allowed, weights[..., None, :], 0.0).amax(dim=-1))
            case MaxPool():
                candidates, sign = pool_candidates(node.op, shapes[0], view.device), 1
            case Extremum():
                candidates = stacked_candidates(len(boxes), node.size, view.device)
                sign = 1 if node.op.maximum else -1
            case Softmax():
                ones = torch.ones_like(boxes[0][0])
                return activation_factor(node, shapes[0], "l2") * root(_largest(weights)) * self.measure(source, ones)
            case _:
                raise TypeError(f"no local rule for {node.op.kind}")
        low, high = join(boxes)
        parts = winners(candidates, low, high, sign) * weights.flatten(1)[:, None]
        back = spread_back(candidates, parts, low.shape[1]).chunk(len(shapes), dim=1)
        return self._joined(node.inputs, [b.reshape(-1, *shape) for b, shape in zip(back, shapes, strict=True)])


def _largest(weights: Tensor) -> Tensor:
    return weights.flatten(1).amax(dim=1)
