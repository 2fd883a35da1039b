"""CROWN (Zhang et al. 2018): linear bounds of every layer and of all margins, tightened with interval bounds.

Boxes grow in node order. Where an activation reads a node and its lines would depend on the box, the box is narrowed by
a backward pass from that node; entries on which the activation is linear whatever happens are left out. The l2 margins
of all rivals take one backward pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from lipcert.bounds.local.backward import PLAIN, Pass, bounds_of, lower_bounds
from lipcert.bounds.local.hopes import Hopes
from lipcert.bounds.local.intervals import Boxes
from lipcert.bounds.local.lines import value_range
from lipcert.bounds.local.margins import differences, margins_on_boxes
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.relaxations import Box, Relaxation, relax
from lipcert.bounds.local.second_look import look_twice
from lipcert.bounds.local.tiled import Tiled
from lipcert.bounds.local.view import View
from lipcert.network.operators import Activation, Affine, Elementwise, Reshape

_MANY = 16  # entries of one sample, from which functions that share rectangles pay


@dataclass(frozen=True)
class Relaxed:
    """A network relaxed on a region.

    Attributes:
        view, ball: the network and the region.
        boxes: of all nodes, (B, *shape) least and largest values each.
        relaxations: of all activation nodes, by index.
        narrowed: (B,) of which samples functions of inner nodes were sent back.
    """

    view: View
    ball: Ball
    boxes: list[Box]
    relaxations: dict[int, Relaxation]
    narrowed: Tensor

    def take(self, samples: Tensor) -> Relaxed:
        """Return the same of some samples, given by index."""
        boxes = [(low[samples], high[samples]) for low, high in self.boxes]
        relaxations = {index: relaxation.take(samples) for index, relaxation in self.relaxations.items()}
        return Relaxed(self.view, self.ball.take(samples), boxes, relaxations, self.narrowed[samples])


def relax_network(
    view: View,
    ball: Ball,
    ways: Mapping[int, Pass] = MappingProxyType({}),
    known: Mapping[int, Box] = MappingProxyType({}),
    hopes: Hopes | None = None,
) -> Relaxed:
    """Return boxes and relaxations of all nodes, every box that matters narrowed by CROWN. Level: numerical.

    Args:
        view, ball: the network and the region.
        ways: how functions of a node are sent back, where it is not the plain way.
        known: boxes of some nodes that hold too.
        hopes: which samples to spare further narrowing; None for none.
    """
    grown, relaxations = Boxes(view, ball), dict[int, Relaxation]()
    tiled = Tiled(view, ball, grown.found, relaxations)
    read, narrowed = set(view.nonlinear_inputs), torch.zeros_like(ball.centre.flatten(1)[:, 0], dtype=torch.bool)
    for _ in view.nodes[1:]:
        index = grown.grow()
        if index in known:
            grown.narrow(index, *known[index])
        if isinstance(view.nodes[index].op, Activation):
            relaxations[index] = relax(view, index, grown.inputs(index), grown.found[index])
        if index in read and not is_tight(view, ball, index):
            mask = undecided(view, index, grown.found[index])
            if hopes is not None:
                mask = mask & ~hopes.spared(grown, relaxations, mask)[:, None]
            narrowed = narrowed | mask.any(dim=1)
            if index not in ways and tiled.serves(index):
                many = mask.sum(dim=1, keepdim=True) >= _MANY
                grown.narrow(index, *tiled.narrowed(index, mask & many))
                mask = mask & ~many
            if mask.any():
                _narrow(grown, relaxations, index, (mask, ways.get(index, PLAIN)))
    return Relaxed(view, ball, grown.found, relaxations, narrowed)


def margins(relaxed: Relaxed, labels: Tensor) -> Tensor:
    """Return (B, classes - 1) lower bounds of all margins: the better of CROWN and the boxes. Level: numerical."""
    view = relaxed.view
    found = lower_bounds(view, relaxed.ball, relaxed.relaxations, len(view.nodes) - 1, differences(view, labels))
    return torch.maximum(found, margins_on_boxes(view, relaxed.boxes, labels))


def best_margins(relaxed: Relaxed, labels: Tensor) -> Tensor:
    """Return what `margins` does, with a second look (see `second_look`) where narrowing the boxes cost more."""
    if not bool(relaxed.narrowed.any()):
        return margins(relaxed, labels)
    if bool(relaxed.narrowed.all()):
        return _twice(relaxed, labels)
    again, rest = torch.nonzero(relaxed.narrowed)[:, 0], torch.nonzero(~relaxed.narrowed)[:, 0]
    parts = [look(relaxed.take(some), labels[some]) for look, some in ((_twice, again), (margins, rest))]
    return torch.cat(parts)[torch.cat([again, rest]).argsort()]


def _twice(relaxed: Relaxed, labels: Tensor) -> Tensor:
    view = relaxed.view
    found, _ = look_twice(view, relaxed.ball, relaxed.relaxations, differences(view, labels))
    return torch.maximum(found, margins_on_boxes(view, relaxed.boxes, labels))


def undecided(view: View, index: int, box: Box) -> Tensor:
    """Return (B, size) at which entries of a node a narrower box would make the lines of an activation better."""
    low, high = box
    found = torch.zeros_like(low, dtype=torch.bool)
    for user in view.network.consumers[index]:
        op = view.nodes[user].op
        if isinstance(op, Elementwise):
            shape = view.activation(user)
            if _is_read(view, user):  # the image of the box is a box that matters too
                least, most = value_range(shape, low, high)
                found = found | (most > least)
            if not shape.curve.is_straight:
                found = found | (high > low)
            for kink in shape.curve.kinks(*shape.parameters):
                point = kink.to(low)
                found = found | ((low < point) & (point < high))
        elif isinstance(op, Activation):
            found = found | (high > low)
    return found.flatten(1)


def _is_read(view: View, index: int) -> bool:
    """Whether an activation reads a node, reshaped or not."""
    users = view.network.consumers[index]
    ops = [view.nodes[user].op for user in users]
    return any(isinstance(op, Activation) for op in ops) or any(
        isinstance(op, Reshape) and _is_read(view, user) for op, user in zip(ops, users, strict=True)
    )


def is_tight(view: View, ball: Ball, index: int) -> bool:
    """Whether a backward pass has nothing to add to a node's box.

    So it is for one affine map of an input without further walls, whose box is exact, and for elementwise activations,
    whose box is the exact image of one that was narrowed before.
    """
    at = _behind_reshapes(view, index)
    if isinstance(view.nodes[at].op, Elementwise):
        return True
    if isinstance(view.nodes[at].op, Affine):
        if ball.box is not None and not ball.is_box:
            return False
        at = _behind_reshapes(view, view.nodes[at].inputs[0])
    return at == 0


def _behind_reshapes(view: View, index: int) -> int:
    while isinstance(view.nodes[index].op, Reshape):
        index = view.nodes[index].inputs[0]
    return index


def _narrow(grown: Boxes, relaxations: dict[int, Relaxation], index: int, how: tuple[Tensor, Pass]) -> None:
    """Narrow the box of a node by a backward pass, at the entries of a mask (B, size).

    Each sample has rows for as many entries as the one with most; what it does not need is not used, so that a bound
    does not depend on the other samples.
    """
    (low, high), (mask, way) = grown.found[index], how
    rows = mask.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, : int(mask.sum(dim=1).amax())]
    found = bounds_of(grown.view, grown.ball, relaxations, index, rows, way)
    ends = (
        torch.where(mask, end.flatten(1).scatter(1, rows, new), end.flatten(1)).reshape(low.shape)
        for end, new in zip((low, high), found, strict=True)
    )
    grown.narrow(index, *ends)
