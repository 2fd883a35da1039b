r"""Boxes of gradients of functions of the output, node by node backwards (RecurJac style).

The gradient at an activation's inputs is that at its outputs, entry by entry times a slope in [alpha, beta]; affine
nodes multiply boxes middle +- radius by A' and |A|'; where nodes are used more than once, boxes add up. A sorting gives
each input the gradient of one of the positions that it may have; a maximum gives it those of the outputs that it may
be, times a number in [0, 1], and all of them where nothing else may win.

The same with slopes seen from the centre bounds the quotients g with f(x') - f(x) = g.(x' - x).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from lipcert.bounds.local.choices import positions, spread_back, winners
from lipcert.bounds.local.relaxations import Box
from lipcert.bounds.local.sectors import Sector
from lipcert.bounds.local.selections import join, pool_candidates, stacked_candidates
from lipcert.bounds.local.view import View
from lipcert.network.operators import Affine, Concat, Elementwise, Extremum, MaxPool, Sort, Sum


@dataclass(frozen=True)
class Gradients:
    """Boxes of the gradients of functions of the output at every node.

    Attributes:
        view: the network.
        boxes: of the values of all nodes.
        sectors: slopes of elementwise nodes.
        found: by node, (B, S, *shape) least and largest entries; the last are the functions themselves.
    """

    view: View
    boxes: Sequence[Box]
    sectors: Mapping[int, Sector]
    found: dict[int, Box]

    @property
    def at_input(self) -> Box:
        """(B, S, n) of the gradient at the input."""
        low, high = self.found[0]
        return low.flatten(2), high.flatten(2)

    def repeat(self, count: int) -> Gradients:
        """Return the same with every function given some times in a row."""
        found = {
            index: (low.repeat_interleave(count, dim=1), high.repeat_interleave(count, dim=1))
            for index, (low, high) in self.found.items()
        }
        return Gradients(self.view, self.boxes, self.sectors, found)

    def send_back(self, index: int) -> list[Box]:
        """Return what a node adds to the gradients at its inputs."""
        (low, high), op = self.found[index], self.view.nodes[index].op
        match op:
            case Affine():
                linear = self.view.maps[index]
                middle, radius = ((high + low) / 2).flatten(0, 1), ((high - low) / 2).flatten(0, 1)
                shape = (*low.shape[:2], *linear.source)
                middle, radius = linear.adjoint(middle).reshape(shape), linear.magnify_adjoint(radius).reshape(shape)
                return [(middle - radius, middle + radius)]
            case Sum():
                return [(low, high) if sign > 0 else (-high, -low) for sign in op.signs]
            case Concat():
                sizes = [self.view.nodes[i].shape[op.axis] for i in self.view.nodes[index].inputs]
                ends = [torch.split(end, sizes, dim=op.axis + 2) for end in (low, high)]
                return list(zip(*ends, strict=True))
            case Elementwise():
                sector = self.sectors[index]
                alpha, beta = sector.alpha[:, None], sector.beta[:, None]
                ends_ = torch.stack([alpha * low, alpha * high, beta * low, beta * high])
                return [(ends_.amin(dim=0), ends_.amax(dim=0))]
            case Sort():
                allowed = positions(*self.boxes[self.view.nodes[index].inputs[0]])[:, None]
                least = torch.where(allowed, low[..., None, :], torch.inf).amin(dim=-1)
                return [(least, torch.where(allowed, high[..., None, :], -torch.inf).amax(dim=-1))]
            case _:
                return self._maxima(index)

    def _maxima(self, index: int) -> list[Box]:
        node, view = self.view.nodes[index], self.view
        shapes = [view.nodes[i].shape for i in node.inputs]
        if isinstance(node.op, MaxPool):
            candidates, sign = pool_candidates(node.op, shapes[0], view.device), 1
        elif isinstance(node.op, Extremum):
            candidates = stacked_candidates(len(shapes), node.size, view.device)
            sign = 1 if node.op.maximum else -1
        else:
            raise TypeError(f"no bounds of the Jacobian of {node.op.kind}")
        values = join([self.boxes[i] for i in node.inputs])
        may = winners(candidates, *values, sign)[:, None]
        alone = may.sum(dim=2, keepdim=True) == 1
        low, high = (end.flatten(2)[:, :, None] for end in self.found[index])
        least = torch.where(may, torch.where(alone, low, low.clamp(max=0.0)), 0.0)
        most = torch.where(may, torch.where(alone, high, high.clamp(min=0.0)), 0.0)
        parts = (spread_back(candidates, end, values[0].shape[1]).chunk(len(shapes), dim=2) for end in (least, most))
        return [
            (low.reshape(*low.shape[:2], *shape), high.reshape(*high.shape[:2], *shape))
            for low, high, shape in zip(*parts, shapes, strict=True)
        ]
