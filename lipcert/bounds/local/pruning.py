"""Boxes, slopes and measures of all nodes on a region, each narrowed by the others (after Huang et al. 2021).

Node by node: the measures of the nodes before narrow a box by |dz_i| <= eps L (sum_j A_ij^2 v_j)^(1/2) (see
`reaches`), and the box tells which slopes the next activation has there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lipcert.bounds.local.intervals import Boxes
from lipcert.bounds.local.lines import Shape
from lipcert.bounds.local.masked_norms import root
from lipcert.bounds.local.reaches import Reaches
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.relaxations import Box
from lipcert.bounds.local.sectors import Sector, anchored_sector, local_sector
from lipcert.bounds.local.view import View
from lipcert.errors import UsageError
from lipcert.network.operators import Affine, Elementwise

Slopes = Callable[[Shape, Box, Tensor], Sector]  # of an activation on a box around a centre


def any_two(shape: Shape, box: Box, centre: Tensor) -> Sector:
    """Return the slopes between any two points of a region."""
    return local_sector(shape, _opened(box))


def from_centre(shape: Shape, box: Box, centre: Tensor) -> Sector:
    """Return the slopes between the centre of a region and other points of it."""
    return anchored_sector(shape, _opened(box), centre)


def _opened(box: Box) -> Box:
    """Widen boxes that are points: what rounding has closed may still move, and slopes need a width."""
    low, high = box
    room = torch.finfo(low.dtype).eps ** 0.5 * (1.0 + low.abs())
    return torch.where(low == high, low - room, low), torch.where(low == high, high + room, high)


def sectors_of(view: View, slopes: Slopes, boxes: Sequence[Box], centre: Sequence[Tensor]) -> dict[int, Sector]:
    """Return the sectors of all elementwise nodes from boxes of all nodes and their values at the samples."""
    inputs = {index: node.inputs[0] for index, node in enumerate(view.nodes) if isinstance(node.op, Elementwise)}
    return {i: slopes(view.activation(i), boxes[source], centre[source]) for i, source in inputs.items()}


@dataclass(frozen=True)
class Pruned:
    """A network on a region.

    Attributes:
        view, ball: the network and the region.
        boxes: of all nodes.
        centre: values of all nodes at the samples.
        sectors: slopes of all elementwise nodes, by index.
        reaches: measures of all nodes.
    """

    view: View
    ball: Ball
    boxes: list[Box]
    centre: list[Tensor]
    sectors: dict[int, Sector]
    reaches: Reaches


def prune(view: View, ball: Ball, slopes: Slopes, known: Sequence[Box] = ()) -> Pruned:
    """Return boxes, slopes and measures of all nodes.

    Args:
        view: the network.
        ball: l2 balls.
        slopes: `any_two` or `from_centre`.
        known: boxes of all nodes that hold too, CROWN's for instance.

    Raises:
        UsageError: the balls are not l2 balls.
    """
    if ball.norm != "l2":
        raise UsageError(f"measures are l2 norms on l2 balls, not {ball.norm}")
    grown, sectors = Boxes(view, ball), dict[int, Sector]()
    reaches = Reaches(view, grown.found, sectors)
    for node in view.nodes[1:]:
        index, source = grown.grow(), node.inputs[0]
        if known:
            grown.narrow(index, *known[index])
        if isinstance(node.op, Affine):
            before = reaches.moves(source)
            length = (ball.eps * before.length).reshape(-1, *(1,) * len(node.shape))
            radius = length * root(view.maps[index].square(before.spread))
            grown.narrow(index, grown.centre[index] - radius, grown.centre[index] + radius)
        elif isinstance(node.op, Elementwise):
            sectors[index] = slopes(view.activation(index), grown.found[source], grown.centre[source])
    return Pruned(view, ball, grown.found, grown.centre, sectors, reaches)
