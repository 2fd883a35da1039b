"""Boxes of all nodes around each sample: interval propagation, and centre +- radius * norms, intersected.

With L the Lipschitz constant of the input of an affine node (from the product of certified norms, in the norm of the
ball) and r_i its rows, |z_i(x') - z_i(x)| <= ||r_i||_* L eps; for the first affine node L is 1. Both that and plain
intervals hold, so their intersection does. The l1 ball lies in the l2 ball of the same radius, whose norms serve it.
"""

from __future__ import annotations

from copy import copy

import torch
from torch import Tensor

from lipcert.bounds.local.lines import value_range
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.relaxations import Box
from lipcert.bounds.local.view import View
from lipcert.network.operators import Affine, Concat, Elementwise, Extremum, MaxPool, Softmax, Sort, Sum


class Boxes:
    """Grows boxes of all nodes of a network, in node order.

    Args of the constructor:
        view: the network.
        ball: the region.

    Attributes:
        found: the boxes so far, (B, *shape) least and largest values; node 0 is the input.
        centre: the values of all nodes at the centres.
    """

    def __init__(self, view: View, ball: Ball) -> None:
        self.view, self.ball = view, ball
        self.centre = view.trace(ball.centre)
        self.found: list[Box] = [(ball.lower, ball.upper)]
        self._lipschitz = view.lipschitz("linf" if ball.norm == "linf" else "l2")

    def grow(self) -> int:
        """Add the box of the next node and return the node's index."""
        index = len(self.found)
        low, high = _step(self.view, index, [self.found[i] for i in self.view.nodes[index].inputs])
        self.found.append((low, high))
        radius = self._radius(index)
        if radius is not None:
            self.narrow(index, self.centre[index] - radius, self.centre[index] + radius)
        return index

    def narrow(self, index: int, low: Tensor, high: Tensor) -> None:
        """Intersect the box of a node with another one that holds too.

        Where rounding makes the intersection empty, both ends are swapped: in real arithmetic it is not empty.
        """
        low, high = torch.maximum(low, self.found[index][0]), torch.minimum(high, self.found[index][1])
        self.found[index] = torch.minimum(low, high), torch.maximum(low, high)

    def copy(self) -> Boxes:
        """Return boxes that grow from here on their own."""
        found = copy(self)
        found.found = list(self.found)
        return found

    def inputs(self, index: int) -> list[Box]:
        """Return the boxes of the inputs of a node."""
        return [self.found[i] for i in self.view.nodes[index].inputs]

    def _radius(self, index: int) -> Tensor | None:
        """Return how far the entries of a node may be from the centre, by norms; None where no norm says so."""
        node = self.view.nodes[index]
        eps = self.ball.eps.reshape(-1, *(1,) * len(node.shape))
        if isinstance(node.op, Affine):
            source, linear = self._lipschitz[node.inputs[0]], self.view.maps[index]
            rows = linear.row_sums if self.ball.norm == "linf" else linear.row_lengths
            return eps * source * rows if source < float("inf") else None
        bound = self._lipschitz[index]
        return eps * bound if bound < float("inf") else None


def boxes(view: View, ball: Ball) -> list[Box]:
    """Return boxes of all nodes, (B, *shape) least and largest values each. Level: numerical."""
    grown = Boxes(view, ball)
    for _ in view.nodes[1:]:
        grown.grow()
    return grown.found


def _step(view: View, index: int, inputs: list[Box]) -> Box:
    """Return the box of a node from those of its inputs."""
    node = view.nodes[index]
    (low, high), kernel = inputs[0], view.kernels[index]
    match node.op:
        case Affine():
            linear = view.maps[index]
            middle, radius = linear.apply((low + high) / 2) + linear.offset, linear.magnify((high - low) / 2)
            return middle - radius, middle + radius
        case Sum():
            ends = [box if sign > 0 else (-box[1], -box[0]) for sign, box in zip(node.op.signs, inputs, strict=True)]
            return torch.stack([b[0] for b in ends]).sum(dim=0), torch.stack([b[1] for b in ends]).sum(dim=0)
        case Elementwise():
            return value_range(view.activation(index), low, high)
        case Concat() | Sort() | MaxPool() | Extremum():  # each output rises with every input
            return kernel(*(box[0] for box in inputs)), kernel(*(box[1] for box in inputs))
        case Softmax():
            return _softmax(node.op, low, high)
    raise TypeError(f"no interval rule for {node.op.kind}")


def _softmax(op: Softmax, low: Tensor, high: Tensor) -> Box:
    """Entry i is 1 / (1 + sum_j e^(x_j - x_i)): it rises with x_i and falls with every other."""
    axis = op.axis + 1
    size = low.shape[axis]
    own = torch.eye(size, dtype=torch.bool, device=low.device).reshape(size, size, *(1,) * (low.ndim - axis - 1))

    def ends(mine: Tensor, others: Tensor) -> Tensor:
        # entry [.., i, j, ..] is x_j as i sees it
        seen = torch.where(own, mine.unsqueeze(axis), others.unsqueeze(axis))
        logs = mine - torch.logsumexp(seen, dim=axis + 1)
        return logs if op.log else logs.exp()

    return ends(low, high), ends(high, low)
