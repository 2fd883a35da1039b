r"""The least value of linear functions on the region of one sample, for many functions at a time in plain float64.

With x = x0 + d, |d| <= eps, and down <= d <= up where there is a box: for every lambda > 0

    min c.d  >=  min over the box of  c.d + (lambda / 2) (d.d - eps^2),

whose least point has d_i = clip(-c_i / lambda, down_i, up_i). With t = 1 / lambda, a float64 number, and the computed
y_i = clip(fl(-t c_i), down_i, up_i), the slope c_i + y_i / t of entry i is at most u |c_i| (and 2^-1075 / t) away from
zero, or from the sign that keeps d_i at its end; the term is convex, so

    c.d + (d.d - eps^2) / (2 t)  >=  c.y + (y.y - eps^2) / (2 t) - sum_i (u |c_i| + 2^-1075 / t) (up_i - down_i).

Any t serves; the best has |y| = eps. |y(t)| is concave in t and 0 at 0: from t = eps / |c| on, the step
t -> t eps / |y(t)| never passes it; nor does that to where |y| = eps if nothing more were clipped, which costs more and
leads farther where much is clipped. Both that and the ball or the box alone are bounds.

`charge` says what rounding costs for each unit of the coefficients, as `drift` wants it; what does not go with |c| is
in `of`.
"""

from __future__ import annotations

import numpy as np

from lipcert.network.enclosure import TINY, UNIT, Float, gamma, round_up
from lipcert.proof.local.arithmetic import below, middle
from lipcert.proof.local.images import laid_out
from lipcert.proof.local.region import Region
from lipcert.proof.local.windows import DType, Windows

FLOAT64: DType = np.dtype(np.float64)
_STEPS, _SCALED = 6, 2  # of t: how many at most, and how many by scaling
_CLOSE = 0.995  # of eps, from which a step of t is not worth it


def charge(region: Region, count: int) -> Float:
    """Return (B, n) what the least value may lose for each unit of a coefficient; count: terms of the constants."""
    n = region.centre[0].size
    low, high = (end.reshape(len(region), -1) for end in region.ends)
    size = np.maximum(np.maximum(-low, high), np.abs(region.centre.reshape(len(region), -1)))
    # products with the centre, the middle, the radius and a step; the norm and eps; the rounded slopes of the split
    return round_up(gamma(2 * n + count + 32) * (6.0 * size + 4.0 * region.eps), 8)


class Least:
    """Of one sample.

    Args of the constructor:
        region: one ball.
        dtype: of the functions: float64; where nothing is proved, float32 too.

    Attributes:
        dtype: as given.
    """

    def __init__(self, region: Region, dtype: DType = FLOAT64) -> None:
        self.dtype, shape = dtype, region.centre.shape[1:]
        self._norm, self._eps, self._cut = region.norm, region.eps, region.box is not None
        mid, radius = middle(*region.ends)
        down, up = region.steps
        parts = (region.centre, mid, radius, down, up)
        self._centre, self._mid, self._radius, self._down, self._up = (laid_out(p.reshape(-1), shape) for p in parts)
        self._wide = float(np.max(up - down))

    def of(self, functions: Windows) -> Float:
        """Return (S,) values; with `charge` for their coefficients taken off, they are lower bounds on the region."""
        if self._norm == "linf":
            return self._on_box(functions)
        length = np.abs(functions.rows).max(axis=0) if self._norm == "l1" else _length(functions.rows)
        at_centre = functions.dot(self._centre)
        ball = at_centre - round_up(self._eps * length)
        if not self._cut:
            return ball
        found = np.maximum(ball, self._on_box(functions))
        if self._norm == "l1":
            return found
        shared = functions if functions.is_shared else functions.made_whole()
        return np.maximum(found, at_centre + self._by_split(shared, length))

    def _on_box(self, functions: Windows) -> Float:
        return functions.dot(self._mid) - functions.like(np.abs(functions.values)).dot(self._radius)

    def _by_split(self, functions: Windows, length: Float) -> Float:
        """Return (S,) bounds of c.d from ball and box together."""
        c, down, up = functions.rows, *(functions.seen(end)[:, None] for end in (self._down, self._up))
        t, eps = self._eps / np.where(length > 0, length, 1.0), self._eps
        y = np.empty_like(c)
        for step in range(_STEPS + 1):
            np.minimum(np.maximum(np.multiply(c, -t, out=y), down, out=y), up, out=y)
            squares = np.einsum("ns,ns->s", y, y)
            short = (squares > 0) & (squares < (_CLOSE * eps) ** 2)
            if step == _STEPS or not short.any():
                break
            farther = t * (eps / np.sqrt(np.where(short, squares, 1.0)))
            if step >= _SCALED:
                free = np.where(y == c * -t, c, 0.0)
                left = np.einsum("ns,ns->s", free, free)
                room = np.maximum(eps * eps - squares + t * t * left, 0.0)
                farther = np.maximum(farther, np.sqrt(room / np.where(left > 0, left, np.inf)))
            t = np.where(short, farther, t)
        excess = (squares - eps * eps) / (2.0 * t)
        lost = gamma(len(c) + 16) * (squares + eps * eps) / t + 4.0 * len(c) * self._wide * TINY / t
        return below(np.einsum("ns,ns->s", c, y) + excess, round_up(lost + 4.0 * UNIT * np.abs(excess) + TINY, 8))


def _length(c: Float) -> Float:
    """Return (S,) upper bounds of the lengths of columns, but for a relative error of their squares' sums."""
    squares: Float = np.einsum("ns,ns->s", c, c)
    return np.sqrt(squares + len(c) * TINY)
