"""From bounds of linear functions to lower bounds of margins: the label's logit minus each rival's."""

from __future__ import annotations

import torch
from torch import Tensor

from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.relaxations import Box
from lipcert.bounds.local.view import View
from lipcert.network.operators import Affine


def rivals(labels: Tensor, classes: int) -> Tensor:
    """Return (B, classes - 1) the classes other than the label, in order."""
    others = torch.arange(classes - 1, device=labels.device)[None]
    return others + (others >= labels[:, None])


def differences(view: View, labels: Tensor) -> Tensor:
    """Return (B, classes - 1, *output_shape) coefficients of all margins on the outputs."""
    others = rivals(labels, view.classes)
    a = torch.zeros((*others.shape, view.classes), dtype=view.dtype, device=view.device)
    a.scatter_(2, others[..., None], -1.0)
    a.scatter_(2, labels[:, None, None].expand(-1, others.shape[1], 1), 1.0)
    return a.reshape(*others.shape, *view.nodes[-1].shape)


def outputs(view: View, samples: int) -> Tensor:
    """Return (samples, classes, *output_shape) coefficients of each single output."""
    basis = torch.eye(view.classes, dtype=view.dtype, device=view.device)
    return basis.expand(samples, -1, -1).reshape(samples, view.classes, *view.nodes[-1].shape)


def settle(bounds: Tensor, ball: Ball, labels: Tensor) -> Tensor:
    """Return (B, classes) margins from those of the rivals.

    Infinite for the label itself; minus infinity where a bound is no number or the sample is not valid, so that
    nothing is certified of it.
    """
    safe = torch.where(torch.isfinite(bounds) & ball.valid[:, None], bounds, -torch.inf)
    full = safe.new_full((len(safe), safe.shape[1] + 1), torch.inf)
    return full.scatter(1, rivals(labels, full.shape[1]), safe)


def proved(constants: Tensor, ball: Ball) -> Tensor:
    """Return (B, S) local constants, infinite where they are no number or the sample is not valid."""
    return torch.where(torch.isfinite(constants) & ball.valid[:, None], constants, torch.inf)


def margins_on_boxes(view: View, found: list[Box], labels: Tensor) -> Tensor:
    """Return (B, classes - 1) lower bounds of the margins from boxes alone.

    The affine nodes at the end are taken with the differences, so that the label and a rival share them.
    """
    a, at = differences(view, labels), len(view.nodes) - 1
    constant = a.new_zeros(a.shape[:2])
    while isinstance(view.nodes[at].op, Affine) and at > 0:
        linear = view.maps[at]
        constant = constant + a.flatten(2) @ linear.offset.flatten()
        a = linear.adjoint(a.flatten(0, 1)).reshape(*a.shape[:2], *linear.source)
        at = view.nodes[at].inputs[0]
    low, high = (end.flatten(1)[..., None] for end in found[at])
    a = a.flatten(2)
    return constant + (torch.bmm(a.clamp(min=0.0), low) + torch.bmm(a.clamp(max=0.0), high))[..., 0]
