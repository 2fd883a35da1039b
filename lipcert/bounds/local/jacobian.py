r"""Bounds of the Clarke Jacobian on a region: local constants in every norm, signs, and margins.

A function with gradients in a box has the Lipschitz constant max ||g||_*, with the dual norm of that of the input: l2
for l2, l1 for linf, linf for l1. The box alone gives the norm of the largest magnitudes. Linear bounds through the
backward pass (`gradient_lines`) give more: |g_i| is below its chord, and g_i^2 <= (l_i + u_i) g_i - l_i u_i, so that
||g||_1 and ||g||_2^2 are below one linear function of the gradient each.

For margins, f(x') - f(x) = g.d with slopes seen from x: with g = m + e, |e| <= r, g.d >= m.d - r.|d|.

Source: RecurJac (Zhang et al. 2019) for boxes; Shi et al. 2022 for linear bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lipcert.bounds.local.backward import rows_at_a_time
from lipcert.bounds.local.crown import relax_network
from lipcert.bounds.local.gradient_lines import gradient_boxes, largest
from lipcert.bounds.local.gradients import Gradients
from lipcert.bounds.local.margins import differences, margins_on_boxes, outputs, proved
from lipcert.bounds.local.masked_norms import matrix_norms
from lipcert.bounds.local.method import Bounds, LocalMethod, layer_norms
from lipcert.bounds.local.pruning import any_two, from_centre, sectors_of
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.view import View
from lipcert.network.operators import Softmax
from lipcert.proof.claims import Norm
from lipcert.proof.local import NOTHING, Proposal

_COPIES = 24  # tensors of the size of the coefficients that live at once


@dataclass(frozen=True)
class Jacobian:
    """Gradients of functions of the output on the regions.

    Attributes:
        low, high: (B, S, n) least and largest entries; minus and plus infinity where nothing is proved.
        lengths: (B, S) local Lipschitz constants of each function in the norm of the ball; infinite likewise.
    """

    low: Tensor
    high: Tensor
    lengths: Tensor

    @property
    def signs(self) -> Tensor:
        """(B, S, n) int8: 1 where a function never falls as an input rises, -1 where it never rises, else 0."""
        return (self.low >= 0).to(torch.int8) - ((self.high <= 0) & (self.low < 0)).to(torch.int8)


def jacobian(view: View, ball: Ball, rows: Tensor | None = None) -> Jacobian:
    """Return bounds of the Clarke Jacobian inside the regions. Level: numerical.

    Args:
        view: the network.
        ball: B regions in any norm.
        rows: (B, S, *output_shape) linear functions of the output; None for each single output.

    Raises:
        TypeError: the network has a softmax inside.
    """
    rows = outputs(view, len(ball)) if rows is None else rows
    boxes = relax_network(view, ball).boxes
    sectors = sectors_of(view, any_two, boxes, view.trace(ball.centre))
    found = [_jacobian(gradient_boxes(view, boxes, sectors, part), ball) for part in _split(view, rows)]
    ends = (torch.cat(parts, dim=1) for parts in zip(*((f.low, f.high, f.lengths) for f in found), strict=True))
    return Jacobian(*ends)


def local_constant(view: View, ball: Ball) -> Tensor:
    """Return (B,) local Lipschitz constants of the whole network, both sides in the norm of the ball.

    Infinite where nothing is proved. Arguments, errors and level as of `jacobian`.
    """
    found = jacobian(view, ball)
    size = torch.maximum(found.low.abs(), found.high.abs())
    match ball.norm:
        case "linf":
            return found.lengths.amax(dim=1)
        case "l1":
            return size.sum(dim=1).amax(dim=1)
    return torch.minimum(torch.linalg.vector_norm(found.lengths, dim=1), matrix_norms(size))


def _jacobian(gradients: Gradients, ball: Ball) -> Jacobian:
    low, high = gradients.at_input
    fine = torch.isfinite(low) & torch.isfinite(high) & ball.valid[:, None, None]
    lengths = proved(dual_lengths(gradients, ball.norm), ball)
    return Jacobian(torch.where(fine, low, -torch.inf), torch.where(fine, high, torch.inf), lengths)


def dual_lengths(gradients: Gradients, norm: Norm) -> Tensor:
    """Return (B, S) upper bounds of the dual norms of the gradients at the input."""
    low, high = gradients.at_input
    size = torch.maximum(low.abs(), high.abs())
    match norm:
        case "l1":
            return size.amax(dim=2)
        case "linf":
            width = high - low
            slope = torch.where(width > 0, (high.abs() - low.abs()) / torch.where(width > 0, width, 1.0), low.sign())
            intercept = torch.maximum(low.abs() - slope * low, high.abs() - slope * high)
            return torch.minimum(size.sum(dim=2), largest(gradients, slope) + intercept.sum(dim=2))
    square = largest(gradients, low + high) - (low * high).sum(dim=2)
    return torch.minimum(torch.linalg.vector_norm(size, dim=2), square.clamp(min=0.0).sqrt())


def _split(view: View, rows: Tensor) -> tuple[Tensor, ...]:
    step = rows_at_a_time(view, len(view.nodes) - 1, len(rows) * _COPIES)
    return torch.split(rows, step, dim=1)


def least_changes(gradients: Gradients, ball: Ball) -> Tensor:
    """Return (B, S) lower bounds of g.(x' - x) on the regions; slopes are `from_centre`."""
    low, high = gradients.at_input
    by_norm = -ball.eps[:, None] * dual_lengths(gradients, ball.norm)
    if ball.box is None:
        return by_norm
    start = ball.centre.flatten(1)
    down, up = ((end.flatten(1) - start)[:, None] for end in (ball.lower, ball.upper))
    by_box = torch.minimum(high * down, low * up).sum(dim=2)
    middle, radius = (low + high) / 2, (high - low) / 2
    along = (
        ball.minimum(middle.reshape(*middle.shape[:2], *ball.centre.shape[1:])) - (middle @ start[..., None])[..., 0]
    )
    order = {"l1": torch.inf, "l2": 2.0, "linf": 1.0}[ball.norm]
    by_parts = along - ball.eps[:, None] * torch.linalg.vector_norm(radius, ord=order, dim=2)
    return torch.stack([by_norm, by_box, by_parts]).amax(dim=0)


class JacobianBounds(LocalMethod):
    """Margins from bounds of the Jacobian, with CROWN's boxes."""

    name: ClassVar[str] = "jacobian"
    summary: ClassVar[str] = "bounds of the Jacobian around the sample, entry by entry and through the backward pass"
    rule: ClassVar[str | None] = "local-gradients/v1"
    cost: ClassVar[str] = "that of CROWN and two passes per rival, on small networks as many as there are inputs"

    def refuses(self, view: View, norm: Norm) -> str | None:
        """Refuse networks with a softmax inside."""
        inside = [node.name for node in view.nodes if isinstance(node.op, Softmax)]
        return f"it has no bounds for the softmax '{inside[0]}'" if inside else super().refuses(view, norm)

    def _bound(self, view: View, ball: Ball, labels: Tensor) -> Bounds:
        boxes, rows = relax_network(view, ball).boxes, differences(view, labels)
        sectors = sectors_of(view, from_centre, boxes, view.trace(ball.centre))
        changes = [least_changes(gradient_boxes(view, boxes, sectors, part), ball) for part in _split(view, rows)]
        at_centre = (rows.flatten(2) @ view(ball.centre)[..., None])[..., 0]
        found = torch.maximum(margins_on_boxes(view, boxes, labels), at_centre + torch.cat(changes, dim=1))
        norms = layer_norms(view, ball)
        return Bounds(found, lambda samples: Proposal(norms=norms) if norms else NOTHING)
