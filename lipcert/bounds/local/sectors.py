r"""Slopes of an activation on a box: all of them, or only those seen from the centre (anchored).

On a cell [a, b] without a kink inside, f' stays within max |f''| (b - a) of the chord's slope, which f' takes
somewhere. The least and largest over all cells are the *local* slopes.

A certificate at x compares x' only with x, so only secants (f(z') - f(z)) / (z' - z) from the value z at x matter. For
z' in a cell that does not hold z, f(z') is within its sag of the chord (see `lines`), and the secant to a point of a
straight line is monotone along it: its ends bound it. A secant is a mean of slopes, so anchored slopes are local
ones too. For ReLU with l < 0 < u they are [z / (z - l), 1] where z > 0 and [0, u / (u - z)] where z < 0.

Source: local sector bounds of control theory (Yin, Seiler & Arcak 2021).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lipcert.bounds.local.lines import Shape, cells, sag
from lipcert.bounds.local.relaxations import Box

_FUNCTION_ERRORS = 4.0  # units in which the values of an activation may be wrong


@dataclass(frozen=True)
class Sector:
    """Slopes between alpha and beta, (B, *shape) each: dv = slope * dz.

    Attributes:
        alpha, beta: the least and the largest slope.
    """

    alpha: Tensor
    beta: Tensor

    @property
    def middle(self) -> Tensor:
        """Mean slope m."""
        return (self.alpha + self.beta) / 2

    @property
    def radius(self) -> Tensor:
        """Half width r: |dv - m dz| <= r |dz|; 0 where the neuron is linear."""
        return (self.beta - self.alpha) / 2


def local_sector(shape: Shape, box: Box) -> Sector:
    """Return the least and largest slope on a box. Level: numerical."""
    low, high = box
    alpha, beta = torch.full_like(low, torch.inf), torch.full_like(low, -torch.inf)
    for piece, a, b in cells(shape, low, high):
        least, most = _slopes(shape, piece, a, b)
        wide = b > a
        alpha = torch.where(wide, torch.minimum(alpha, least), alpha)
        beta = torch.where(wide, torch.maximum(beta, most), beta)
    return _settled(alpha, beta, box)


def anchored_sector(shape: Shape, box: Box, centre: Tensor) -> Sector:
    """Return the least and largest secant slope from the centre to points of a box. Level: numerical.

    Args:
        shape: the activation.
        box: (B, *shape) ends.
        centre: (B, *shape) the pre-activation at the sample; inside the box, or a secant leaves it.
    """
    low, high = box
    value = shape.function(centre, *shape.parameters)
    alpha, beta = torch.full_like(low, torch.inf), torch.full_like(low, -torch.inf)
    for piece, a, b in cells(shape, low, high):
        least, most = _slopes(shape, piece, a, b)
        away = (centre < a) | (centre > b)
        if bool(away.any()):
            below, above = _secants(shape, piece, (a, b), centre, value)
            least, most = torch.where(away, below, least), torch.where(away, above, most)
        wide = b > a
        alpha = torch.where(wide, torch.minimum(alpha, least), alpha)
        beta = torch.where(wide, torch.maximum(beta, most), beta)
    local = local_sector(shape, (torch.minimum(low, centre), torch.maximum(high, centre)))
    seen = _settled(alpha, beta, box)
    return Sector(torch.maximum(seen.alpha, local.alpha), torch.minimum(seen.beta, local.beta))


def _settled(alpha: Tensor, beta: Tensor, box: Box) -> Sector:
    """Return a sector; boxes that are single points get slope 0, as nothing moves there, boxes of NaN get NaN."""
    point, known = alpha > beta, box[0] <= box[1]
    still = torch.where(known, 0.0, torch.nan).to(alpha)
    return Sector(torch.where(point, still, alpha), torch.where(point, still, beta))


def _slopes(shape: Shape, piece: int, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return bounds of f' on cells [a, b] of a piece; of no meaning where a = b."""
    width = b - a
    left, right = (shape.function(end, *shape.parameters) for end in (a, b))
    safe = torch.where(width > 0, width, 1.0)
    chord = (right - left) / safe
    if shape.curve.second[piece] is None:
        return chord, chord
    least, most = shape.curve.bend(piece, a, b, shape.parameters)
    rounding = _FUNCTION_ERRORS * torch.finfo(a.dtype).eps * (left.abs() + right.abs()) / safe  # cells may be tiny
    reach = torch.maximum(least.abs(), most.abs()) * width + rounding
    alpha, beta = shape.slopes
    return torch.maximum(chord - reach, alpha), torch.minimum(chord + reach, beta)


def _secants(
    shape: Shape, piece: int, cell: tuple[Tensor, Tensor], centre: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the least and largest secant slope from (centre, value) to the points of cells that do not hold it."""
    depth, height = sag(shape, piece, *cell)
    found = []
    for end in cell:
        run = end - centre
        rise = shape.function(end, *shape.parameters) - value
        safe = torch.where(run == 0, 1.0, run)
        ends = ((rise - depth) / safe, (rise + height) / safe)
        found.append((torch.minimum(*ends), torch.maximum(*ends)))
    (low_a, high_a), (low_b, high_b) = found
    return torch.minimum(low_a, low_b), torch.maximum(high_a, high_b)
