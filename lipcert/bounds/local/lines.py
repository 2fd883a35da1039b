r"""Lines below and above an activation on a box [l, u].

**Polylines.** Take points l = x_0 < ... < x_K = u with every kink among them. On a cell of width h, f lies within
M h^2 / 8 of its chord where -M <= f'' <= M (below it by at most max(f'', 0) h^2 / 8, above it by at most
max(-f'', 0) h^2 / 8); and within (beta - alpha) h / 4, where all slopes are in [alpha, beta], because
f(x) >= max(f_a + alpha (x - a), f_b - beta (b - x)), whose largest depth below the chord is
(beta - c) (c - alpha) / (beta - alpha) h for the chord's slope c. Lowering both ends of each cell by the least of
these gives a polyline below f, raising them one above. For piecewise linear f nothing is lowered.

**Lines.** A line with any slope s is below f if its intercept is min_k (p_k - s x_k), p the polyline below: it then
is below the polyline, which is below f. So slopes are free: they may come from anywhere, rounding included, and may
be optimised. The slope chosen here supports the convex hull of the polyline at the middle of the box, which makes the
area between the line and f least; for ReLU that is 1 where u > -l and 0 elsewhere, for convex f the tangent at the
middle, for concave f the chord.

Everything holds in real arithmetic; lines above f are lines below -f.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from lipcert.bounds.local.contacts import intercepts
from lipcert.bounds.local.curves import Curve
from lipcert.bounds.torch_activations import Function

CELLS = 32  # of all curved pieces together
_MOVES = 8  # of the ends of the chord that becomes the supporting line


@dataclass(frozen=True)
class Shape:
    """One activation node as this file sees it.

    Attributes:
        function: the activation in torch, called with the parameters.
        curve: its bends.
        parameters: tensors broadcastable to the node.
        slopes: (alpha, beta), tensors broadcastable to the node: all slopes on the real line are between them.
    """

    function: Function
    curve: Curve
    parameters: tuple[Tensor, ...]
    slopes: tuple[Tensor, Tensor]

    @cached_property
    def rises(self) -> bool:
        """Whether the activation never falls."""
        return bool((self.slopes[0] >= 0).all())


@dataclass(frozen=True)
class Polyline:
    """Points between which straight lines stay below, and others above, an activation.

    Attributes:
        x: (K, B, *shape) the points, ascending; the first are l, the last u.
        below, above: (K, B, *shape) the values.
        contact: the activation, where lines of any slope touch it in closed form: the values are its own then, and
            only slopes are taken from them. None where the polylines themselves are below and above it.
    """

    x: Tensor
    below: Tensor
    above: Tensor
    contact: Shape | None = None

    def of_functions(self) -> Polyline:
        """Return the same for (B, S, *shape) slopes, one set for each of S functions."""
        return replace(self, x=self.x[:, :, None], below=self.below[:, :, None], above=self.above[:, :, None])

    def slope_range(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the least and the largest slope of the pieces of a polyline (0 for points): no line needs others.

        values: `below` or `above`.
        """
        slopes = _quotient(values.diff(dim=0), self.x.diff(dim=0))
        wide = self.x.diff(dim=0) > 0
        low = torch.where(wide, slopes, torch.inf).amin(dim=0)
        high = torch.where(wide, slopes, -torch.inf).amax(dim=0)
        return torch.where(low <= high, low, 0.0), torch.where(low <= high, high, 0.0)

    def take(self, samples: Tensor) -> Polyline:
        """Return the same of some samples, given by index."""
        return replace(self, x=self.x[:, samples], below=self.below[:, samples], above=self.above[:, samples])

    def highest_below(self, slope: Tensor) -> Tensor:
        """Return the largest intercepts of lines of these slopes below f; slope: broadcastable to x[0]."""
        if self.contact is not None:
            return intercepts(self.contact, self.x[0], self.x[-1], slope)[0]
        return _least(self.below, self.x, slope)

    def lowest_above(self, slope: Tensor) -> Tensor:
        """Return the smallest intercepts of lines of these slopes above f."""
        if self.contact is not None:
            return intercepts(self.contact, self.x[0], self.x[-1], slope)[1]
        return -_least(-self.above, self.x, -slope)


@dataclass(frozen=True)
class Lines:
    """Lines a x + b below and above an activation, each tensor of the shape (B, *shape)."""

    low_slope: Tensor
    low_intercept: Tensor
    high_slope: Tensor
    high_intercept: Tensor

    def take(self, samples: Tensor) -> Lines:
        """Return the same of some samples, given by index."""
        ends = self.low_slope, self.low_intercept, self.high_slope, self.high_intercept
        return Lines(*(end[samples] for end in ends))


def cells(shape: Shape, low: Tensor, high: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield (piece, a, b): boxes [low, high], (B, *shape) each, cut at kinks, and curved pieces further."""
    kinks = [kink.to(low).expand_as(low) for kink in shape.curve.kinks(*shape.parameters)]
    if len(kinks) == 2:
        kinks = [torch.minimum(*kinks), torch.maximum(*kinks)]
    ends = [low, *(torch.minimum(torch.maximum(kink, low), high) for kink in kinks), high]
    curved = sum(piece is not None for piece in shape.curve.second)
    for piece, (a, b) in enumerate(pairwise(ends)):
        count = 1 if shape.curve.second[piece] is None else CELLS // curved
        for left, right in pairwise(_spread(a, b, count)):
            yield piece, left, right


def polyline(shape: Shape, low: Tensor, high: Tensor) -> Polyline:
    """Return polylines below and above an activation on boxes [low, high], (B, *shape) each."""
    if shape.curve.is_straight or shape.curve.meets is not None:
        x = torch.stack([low, *(right for _, _, right in cells(shape, low, high))])
        y = shape.function(x, *shape.parameters)
        return Polyline(x, y, y, None if shape.curve.is_straight else shape)
    xs, depths, heights = [low], [], []
    for piece, left, right in cells(shape, low, high):
        depth, height = sag(shape, piece, left, right)
        depths.append(depth)
        heights.append(height)
        xs.append(right)
    x = torch.stack(xs)
    y = shape.function(x, *shape.parameters)
    return Polyline(x, y - _beside(depths), y + _beside(heights))


def value_range(shape: Shape, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least and the largest value of an activation on boxes [low, high]."""
    if shape.rises:
        return shape.function(low, *shape.parameters), shape.function(high, *shape.parameters)
    points = torch.stack(shape.curve.extremes(low, high, shape.parameters))
    values = shape.function(points, *shape.parameters)
    return values.amin(dim=0), values.amax(dim=0)


def best_lines(shape: Shape, line: Polyline) -> Lines:
    """Return the lines below and above that enclose the least area each: those that support at the middle."""
    return supporting_lines(shape, line, (line.x[0] + line.x[-1]) / 2)


def supporting_lines(shape: Shape, line: Polyline, at: Tensor) -> Lines:
    """Return the line below that is highest, and the one above that is lowest, at a point each.

    Args:
        shape, line: the activation and its polylines.
        at: (B, *shape) the points, or (B, S, *shape) where the polylines are `of_functions`.
    """
    alpha, beta = shape.slopes
    with torch.no_grad():
        low = _supporting_slope(line.x, line.below, at).clamp(alpha, beta)
        high = (-_supporting_slope(line.x, -line.above, at)).clamp(alpha, beta)
    return Lines(low, line.highest_below(low), high, line.lowest_above(high))


def _spread(a: Tensor, b: Tensor, cells: int) -> list[Tensor]:
    """Return points from a to b, denser near 0, where the functions bend."""
    if cells == 1:
        return [a, b]
    start, stop = torch.asinh(a), torch.asinh(b)
    inner = (torch.sinh(start + (stop - start) * (k / cells)) for k in range(1, cells))
    return [a, *(torch.minimum(torch.maximum(point, a), b) for point in inner), b]


def sag(shape: Shape, piece: int, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return how far f may fall below, and rise above, its chord on cells [a, b] of a piece."""
    if shape.curve.second[piece] is None:
        return torch.zeros_like(a), torch.zeros_like(a)
    least, most = shape.curve.bend(piece, a, b, shape.parameters)
    width, (alpha, beta) = b - a, shape.slopes
    limit, scale = (beta - alpha) * width / 4.0, width.square() / 8.0
    return torch.minimum(most.clamp(min=0.0) * scale, limit), torch.minimum((-least).clamp(min=0.0) * scale, limit)


def _beside(cells: list[Tensor]) -> Tensor:
    """Return, for each point, the largest number of the cells beside it."""
    stacked = torch.stack(cells)
    return torch.cat([stacked[:1], torch.maximum(stacked[:-1], stacked[1:]), stacked[-1:]])


def _least(p: Tensor, x: Tensor, slope: Tensor) -> Tensor:
    """Return min_k p_k - s x_k; its gradient is that of the least term."""
    if not slope.requires_grad:
        lowest: Tensor = (p - slope * x).amin(dim=0)
        return lowest
    with torch.no_grad():
        least, index = p[0] - slope * x[0], torch.zeros_like(slope, dtype=torch.int64)
        for k in range(1, len(p)):
            value = p[k] - slope * x[k]
            less = value < least
            least, index = torch.where(less, value, least), torch.where(less, k, index)
    at_p, at_x = (v.expand(len(v), *slope.shape).gather(0, index[None])[0] for v in (p, x))
    return at_p - slope * at_x


def _supporting_slope(x: Tensor, p: Tensor, at: Tensor) -> Tensor:
    """Return the slope of the line that supports the convex hull of the points (x_k, p_k) at a place.

    It starts with the chord from end to end; the point farthest below it becomes its new left end where it is left
    of the place, else its right end, until there is none (or too many moves: any slope is admissible).
    """
    x0, p0, x1, p1 = x[0], p[0], x[-1], p[-1]
    if len(x) == 3:  # the same without a search
        chord = _quotient(p1 - p0, x1 - x0)
        left, right = (_quotient(p[k + 1] - p[k], x[k + 1] - x[k], chord) for k in (0, 1))
        return torch.where(left < right, torch.where(x[1] <= at, right, left), chord)
    for _ in range(min(_MOVES, len(x) - 2)):
        slope = _quotient(p1 - p0, x1 - x0)
        gap, index = (p[1:-1] - p0 - slope * (x[1:-1] - x0)).min(dim=0)
        if not bool((gap < 0).any()):
            break
        at_x, at_p = (v[1:-1].expand(-1, *index.shape).gather(0, index[None])[0] for v in (x, p))
        move_left, move_right = (gap < 0) & (at_x <= at), (gap < 0) & (at_x > at)
        x0, p0 = torch.where(move_left, at_x, x0), torch.where(move_left, at_p, p0)
        x1, p1 = torch.where(move_right, at_x, x1), torch.where(move_right, at_p, p1)
    return _quotient(p1 - p0, x1 - x0)


def _quotient(rise: Tensor, run: Tensor, otherwise: Tensor | float = 0.0) -> Tensor:
    wide = run > 0
    return torch.where(wide, rise / torch.where(wide, run, 1.0), otherwise)
