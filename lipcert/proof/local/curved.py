r"""Lines below and above every elementwise activation on boxes [l, u], with any slopes.

Piecewise linear activations: see `straight`. For the others (`bends`), take points l = x_0 < ... < x_K = u, all kinks
and stationary points inside among them. On a cell [a, b] of width h, with g(x) = f(x) - s x, p_a <= g(a), p_b <= g(b):

* f'' <= M, M >= 0, gives g >= the chord of p less (M / 2)(x - a)(b - x). With c = M h^2 / 2 and d = |p_a - p_b| the
  least value of the right side on the cell is

      min(p_a, p_b) - (c - d)^2 / (4 c)   where d < c,   else min(p_a, p_b);

* all slopes are in [alpha, beta], so g >= max(p_a - (s - alpha)(x - a), p_b - (beta - s)(b - x)). With e = s - alpha
  and e' = beta - s where p_a <= p_b, and these two exchanged elsewhere,

      g >= min(p_a, p_b) - max(e, 0) max(e' h - d, 0) / (beta - alpha).

A line s x + t is below f if t is at most the larger of the two bounds, on every cell. So any slope is admissible, and
only intercepts are derived: p is rounded down, what is taken off is rounded up. Where M is close to f'' the first bound
is off by O(h^3). Lines above f are lines below -f.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lipcert.network.activations import slope_interval
from lipcert.network.enclosure import TINY, Enclosure, Float, round_up
from lipcert.network.operators import Elementwise
from lipcert.proof.local import straight
from lipcert.proof.local.arithmetic import above, below, over, sum_error
from lipcert.proof.local.bends import BENDS
from lipcert.proof.local.proposal import Mask
from lipcert.proof.local.straight import STRAIGHT, Lines, heights

CELLS = 24  # besides those that kinks and stationary points make
_MOVES = 8  # of the ends of the chord that becomes the supporting line


def has_lines(op: Elementwise) -> bool:
    """Whether lines of an activation are derived here."""
    return op.name in STRAIGHT or op.name in BENDS


def lines(op: Elementwise, low: Float, high: Float, slopes: tuple[Float, Float] | None = None) -> Lines:
    """Return lines of an activation on boxes; arguments as of `straight.lines`."""
    if op.name in STRAIGHT:
        return straight.lines(op, low, high, slopes)
    under = _Cells.of(op, low, high).flat()
    upper = under.negated()
    if slopes is None:
        chosen = _supporting_slope(under), -_supporting_slope(upper)
    else:
        chosen = slopes[0].reshape(*slopes[0].shape[:2], -1), slopes[1].reshape(*slopes[1].shape[:2], -1)
    return Lines(chosen[0], under.intercept(chosen[0]), chosen[1], -upper.intercept(-chosen[1]))


def value_range(op: Elementwise, low: Float, high: Float) -> tuple[Float, Float]:
    """Return bounds of an activation on boxes (B, *shape)."""
    if op.name in STRAIGHT:
        return straight.value_range(op, low, high)
    if bool((slope_interval(op)[0] >= 0).all()):
        ends = BENDS[op.name].value(Enclosure(np.stack([low, high])), *_parameters(op))
        return below(ends.mid[0], ends.radius[0]), above(ends.mid[1], ends.radius[1])
    cells = _Cells.of(op, low, high)
    return cells.intercept(np.zeros_like(low)), -cells.negated().intercept(np.zeros_like(low))


def is_bent(op: Elementwise, low: Float, high: Float) -> Mask:
    """Return where an activation is not linear on boxes."""
    points, bent = (
        straight.kinks(op) if op.name in STRAIGHT else BENDS[op.name].kinks,
        np.zeros(low.shape, dtype=np.bool_),
    )
    for point in points:
        bent |= (low < point) & (point < high)
    if op.name in BENDS:
        start, stop = BENDS[op.name].where
        bent |= (low < high) & (low < stop) & (start < high)
    return bent


def slopes_between(op: Elementwise, low: Float, high: Float) -> tuple[Float, Float]:
    """Return bounds of all slopes of a curved activation on boxes (B, *shape); NaN where the box was none.

    On a cell f' differs from the slope of the chord, which is a value of f' there, by at most h max |f''|.
    """
    alpha, beta = slope_interval(op)
    least, most = np.full(low.shape, np.inf), np.full(low.shape, -np.inf)
    for cell in _Cells.of(op, low, high).each():
        run, rise = cell.x_b - cell.x_a, cell.y_b - cell.y_a
        chord = rise / np.where(run > 0, run, 1.0)
        lost = (cell.error + sum_error(rise)) / np.where(run > 0, run, 1.0) + 2.0**-50 * np.abs(chord)
        error = over(lost + cell.turn * run, 16)
        least = np.where(run > 0, np.minimum(least, below(chord, error)), least)
        most = np.where(run > 0, np.maximum(most, above(chord, error)), most)
    known = (low < high) & (least <= most)
    least, most = np.where(known, np.maximum(least, alpha), alpha), np.where(known, np.minimum(most, beta), beta)
    return np.where(low <= high, least, np.nan), np.where(low <= high, most, np.nan)


@dataclass(frozen=True)
class _Cell:
    """One cell of every box: its ends, the values there, their errors added up, and the largest |f''|."""

    x_a: Float
    x_b: Float
    y_a: Float
    y_b: Float
    error: Float
    turn: Float


@dataclass(frozen=True)
class _Cells:
    """Boxes cut at points, for lines below.

    Attributes:
        x, y, error: (K, ...) the points, the values there, and upper bounds of the values' errors.
        most, least: (K - 1, ...) bounds of f'' on the cells.
        slopes: bounds of all slopes.
    """

    x: Float
    y: Float
    error: Float
    most: Float
    least: Float
    slopes: tuple[Float, Float]

    @staticmethod
    def of(op: Elementwise, low: Float, high: Float) -> _Cells:
        """Cut boxes (B, *shape)."""
        bend, parameters = BENDS[op.name], _parameters(op)
        x = _points(low, high, (*bend.kinks, *bend.stationary))
        y = bend.value(Enclosure(x.copy()), *parameters)
        least, most = bend.between(x, parameters)
        alpha, beta = slope_interval(op)
        return _Cells(
            x, y.mid, y.radius, most, least, (np.broadcast_to(alpha, low.shape), np.broadcast_to(beta, low.shape))
        )

    def flat(self) -> _Cells:
        """Return the same with boxes (B, 1, n), for slopes of S functions."""

        def row(part: Float) -> Float:
            return part.reshape(*part.shape[:2], 1, -1)

        slopes = self.slopes[0].reshape(len(self.slopes[0]), 1, -1), self.slopes[1].reshape(len(self.slopes[1]), 1, -1)
        return _Cells(row(self.x), row(self.y), row(self.error), row(self.most), row(self.least), slopes)

    def negated(self) -> _Cells:
        """Return the same of -f."""
        return _Cells(self.x, -self.y, self.error, -self.least, -self.most, (-self.slopes[1], -self.slopes[0]))

    def each(self) -> Iterator[_Cell]:
        """Yield the cells in order."""
        for k, (least, most) in enumerate(zip(self.least, self.most, strict=True)):
            error, turn = round_up(self.error[k] + self.error[k + 1]), np.maximum(-least, most)
            yield _Cell(self.x[k], self.x[k + 1], self.y[k], self.y[k + 1], error, turn)

    def intercept(self, slope: Float) -> Float:
        """Return lower bounds of f(x) - s x on the boxes, for slopes that broadcast with them."""
        before = found = heights(self.x[0], self.y[0], self.error[0], slope)
        for k, most in enumerate(self.most):
            width = np.nextafter(self.x[k + 1] - self.x[k], np.inf)
            after = heights(self.x[k + 1], self.y[k + 1], self.error[k + 1], slope)
            depth = np.minimum(_bent(before, after, width, most), self._limited(before, after, width, slope))
            lowest = np.minimum(before, after)
            found = np.minimum(found, np.where(self.x[k + 1] == self.x[k], lowest, below(lowest, depth)))
            before = after
        return found

    def _limited(self, p_a: Float, p_b: Float, width: Float, slope: Float) -> Float:
        """Return how far g may fall below both ends of a cell by the slopes of f; an upper bound."""
        alpha, beta = self.slopes
        fall, rise = np.nextafter(slope - alpha, np.inf), np.nextafter(beta - slope, np.inf)
        fall, rise = np.maximum(fall, 0.0), np.maximum(rise, 0.0)
        first = p_a <= p_b
        near, far = np.where(first, fall, rise), np.where(first, rise, fall)
        climb = np.maximum(over(far * width, 2) - _gap(p_a, p_b), 0.0)
        return over(near * np.nextafter(climb, np.inf) / np.nextafter(beta - alpha, -np.inf), 4)


def _bent(p_a: Float, p_b: Float, width: Float, most: Float) -> Float:
    """Return how far g may fall below both ends of a cell by its second derivative; an upper bound."""
    c = over(0.5 * np.maximum(most, 0.0) * width * width, 4)
    rest = np.maximum(np.nextafter(c - _gap(p_a, p_b), np.inf), 0.0)
    return over(0.25 * rest * (rest / c), 4)


def _gap(p_a: Float, p_b: Float) -> Float:
    """Return lower bounds of |p_a - p_b|."""
    return np.maximum(np.nextafter(np.abs(p_a - p_b), -np.inf), 0.0)


def _parameters(op: Elementwise) -> tuple[Enclosure, ...]:
    return tuple(Enclosure.exact(parameter) for parameter in op.params)


def _points(low: Float, high: Float, inner: tuple[float, ...]) -> Float:
    """Return points (K, B, *shape) of boxes, ascending, denser around zero where a box is wide."""
    start, stop = np.arcsinh(low), np.arcsinh(high)
    cuts = [np.sinh(start + (stop - start) * (k / CELLS)) for k in range(1, CELLS)]
    cuts += [np.full_like(low, point) for point in inner]
    return np.sort(np.stack([low, *(np.minimum(np.maximum(cut, low), high) for cut in cuts), high]), axis=0)


def _supporting_slope(cells: _Cells) -> Float:
    """Return the slope of the line that supports the convex hull of the points at the middle of the box.

    As in `bounds.local.lines`: the chord from end to end, its ends moved to the point farthest below it. Any slope
    will do.
    """
    x, y = cells.x, cells.y
    centre = x[0] + (x[-1] - x[0]) / 2
    x_0, y_0, x_1, y_1 = x[0], y[0], x[-1], y[-1]
    for _ in range(_MOVES):
        slope = _quotient(y_1 - y_0, x_1 - x_0)
        gap = y - y_0 - slope * (x - x_0)
        at = gap.argmin(axis=0)[None]
        x_k, y_k, lower = (np.take_along_axis(v, at, axis=0)[0] for v in (x, y, gap))
        lower = lower < -TINY
        if not lower.any():
            break
        left, right = lower & (x_k <= centre), lower & (x_k > centre)
        x_0, y_0 = np.where(left, x_k, x_0), np.where(left, y_k, y_0)
        x_1, y_1 = np.where(right, x_k, x_1), np.where(right, y_k, y_1)
    found = _quotient(y_1 - y_0, x_1 - x_0)
    return np.where(np.isfinite(found), found, 0.0)


def _quotient(rise: Float, run: Float) -> Float:
    return np.where(run > 0, rise / np.where(run > 0, run, 1.0), 0.0)
