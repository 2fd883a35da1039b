"""Boxes of image nodes narrowed on a CPU by functions that share rectangles: the engine of `proof` in any dtype.

Convolutions of few channels are slow in torch, on windows most of all. `proof.local.columns` lays functions out so that
every step is a matrix product over long runs of memory; with float32 numbers it is the faster way to bound many entries
of an image node at level numerical too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.relaxations import Box, Linear, Relaxation
from lipcert.bounds.local.view import View
from lipcert.network.enclosure import Float
from lipcert.proof.local.backward import Relaxation as Laid
from lipcert.proof.local.boxes import Steps
from lipcert.proof.local.columns import Columns
from lipcert.proof.local.least import Least
from lipcert.proof.local.narrowing import undecided
from lipcert.proof.local.region import Region
from lipcert.proof.local.selected import selections
from lipcert.proof.local.straight import Lines
from lipcert.proof.local.zonotope import Zonotopes


class Tiled:
    """Bounds entries of image nodes of a network on a region.

    Args of the constructor:
        view, ball: the network and the region.
        boxes, relaxations: of all nodes so far. Grow.
    """

    def __init__(self, view: View, ball: Ball, boxes: Sequence[Box], relaxations: Mapping[int, Relaxation]) -> None:
        self._view, self._ball, self._boxes, self._relaxations = view, ball, boxes, relaxations
        self._lines = dict[int, Laid]()
        self._ends: list[tuple[Float, Float]] = []
        self._columns: dict[int, Columns] = {}
        self._dtype = np.dtype(str(view.dtype).removeprefix("torch."))

    @cached_property
    def _steps(self) -> Steps:
        assert self._view.steps is not None
        return self._view.steps

    @cached_property
    def _zonotopes(self) -> Zonotopes:
        return Zonotopes(self._steps, self._region, self._ends, self._dtype)

    def serves(self, index: int) -> bool:
        """Whether functions of a node are better sent back here."""
        view, ball = self._view, self._ball
        if view.device.type != "cpu" or ball.centre.requires_grad or ball.eps.requires_grad:
            return False
        return len(view.nodes[index].shape) == 3 and view.steps is not None

    @np.errstate(all="ignore")
    def narrowed(self, index: int, mask: Tensor) -> Box:
        """Return bounds of a node (B, *shape) where the mask (B, size) says so, elsewhere its box. Level: numerical."""
        self._catch_up(index)
        box, left = self._ends[index], mask.numpy()
        cheap = self._zonotopes.pay(index, left)
        if cheap.any():
            box = self._zonotopes.narrowed(index, box, cheap)
            left = np.asarray(undecided(self._steps, index, box) & left)
        low, high = (end.reshape(len(left), -1).copy() for end in box)
        for b in np.flatnonzero(left.any(axis=1)).tolist():
            rows = np.flatnonzero(left[b])
            low[b, rows], high[b, rows] = self._of_sample(b).bounds(index, rows)
        shape = self._boxes[index][0].shape
        return torch.from_numpy(low).reshape(shape), torch.from_numpy(high).reshape(shape)

    @np.errstate(all="ignore")
    def looked_at(self, index: int) -> Box:
        """Return the box of a node (B, *shape), narrower where a zonotope says so. Level: numerical."""
        self._catch_up(index)
        matters = np.asarray(undecided(self._steps, index, self._ends[index]).any(axis=1))
        low, high = self._zonotopes.narrowed(index, self._ends[index], matters)
        return torch.from_numpy(low), torch.from_numpy(high)

    def _catch_up(self, index: int) -> None:
        """Take over boxes and relaxations of all nodes up to one."""
        known = len(self._ends)
        self._ends[:] = [(low.numpy(), high.numpy()) for low, high in self._boxes[: index + 1]]
        for at in range(known, index + 1):
            relaxation, node = self._relaxations.get(at), self._view.nodes[at]
            if isinstance(relaxation, Linear):
                lines = relaxation.lines
                parts = (lines.low_slope, lines.low_intercept, lines.high_slope, lines.high_intercept)
                self._lines[at] = Lines(*(part.flatten(2).numpy() for part in parts))
            elif relaxation is not None:
                chosen = selections(self._view.network, at, [self._ends[i] for i in node.inputs])
                if chosen:
                    self._lines[at] = chosen

    def _of_sample(self, b: int) -> Columns:
        if b not in self._columns:
            least = Least(self._region(b), self._dtype)
            self._columns[b] = Columns(self._steps, least, b, (self._ends, self._lines))
        return self._columns[b]

    def _region(self, b: int) -> Region:
        ball, one = self._ball, slice(b, b + 1)
        return Region(
            ball.centre[one].double().numpy(), float(ball.eps[b]), ball.norm, ball.box, ball.valid[one].numpy()
        )
