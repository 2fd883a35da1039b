"""The balls that verified local bounds speak of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from lipcert.errors import UsageError
from lipcert.network.enclosure import Float, gamma, round_up
from lipcert.proof.claims import NORMS, Norm
from lipcert.proof.local.arithmetic import above, below, dual_norms, middle, over, sum_error

Mask = npt.NDArray[np.bool_]
_SPLITS = 6  # updates of the split between ball and box


@dataclass(frozen=True, eq=False)
class Region:
    """The balls ||x - centre|| <= eps, one per sample, intersected with an input box where there is one.

    All numbers are exact: the region is that of these float64 numbers.

    Attributes:
        centre: (B, *input_shape), finite; samples that were not are zero here and not `valid`.
        eps: radius in raw input units, positive.
        norm: of the ball.
        box: least and largest value that an input may have, or None for no box.
        valid: (B,) whether the sample is finite and inside the box.
    """

    centre: Float
    eps: float
    norm: Norm
    box: tuple[float, float] | None
    valid: Mask

    @staticmethod
    def around(
        images: npt.NDArray[np.floating], eps: float, norm: Norm = "l2", box: tuple[float, float] | None = None
    ) -> Region:
        """Return the balls around images (B, *input_shape), float32 or float64.

        Raises:
            UsageError: the radius is not a positive number, the box is empty, or the norm unknown.
        """
        if norm not in NORMS:
            raise UsageError(f"there is no norm '{norm}': one of {', '.join(NORMS)}")
        if not 0 < eps < np.inf:
            raise UsageError("a radius is a positive finite number")
        if box is not None and not box[0] < box[1]:
            raise UsageError(f"the input box [{box[0]}, {box[1]}] is empty")
        flat = images.reshape(len(images), -1).astype(np.float64)
        valid = np.asarray(np.isfinite(flat).all(axis=1))
        if box is not None:
            valid = valid & (flat >= box[0]).all(axis=1) & (flat <= box[1]).all(axis=1)
        return Region(np.where(valid[:, None], flat, 0.0).reshape(images.shape), float(eps), norm, box, valid)

    def __len__(self) -> int:
        return len(self.centre)

    def take(self, samples: slice | npt.NDArray[np.int64]) -> Region:
        """Return the balls of some samples."""
        return Region(self.centre[samples], self.eps, self.norm, self.box, self.valid[samples])

    @cached_property
    def lower(self) -> Float:
        """(B, *input_shape) a lower bound of each input."""
        low = self.centre - self.eps
        low = below(low, sum_error(low))
        return low if self.box is None else np.maximum(low, self.box[0])

    @cached_property
    def upper(self) -> Float:
        """(B, *input_shape) an upper bound of each input."""
        high = self.centre + self.eps
        high = above(high, sum_error(high))
        return high if self.box is None else np.minimum(high, self.box[1])

    def minimum(self, coefficients: Float) -> Float:
        """Return (B, S) lower bounds of linear functions c.x on the region: the best of what ball, box and both say.

        For every p, with q = c - p: c.d >= -eps ||p||_* + min q.d over the box, d = x - x0. p = c is the ball alone,
        p = 0 the box; for l2 balls the p of the least point (`bounds.local.region`) is tried too.

        Args:
            coefficients: (B, S, n).
        """
        points = self.centre.reshape(len(self), -1)
        at_centre = linear_on_box(coefficients, points, points)
        reach = round_up(self.eps * dual_norms(coefficients, self.norm))
        found = below(at_centre, reach)
        if self.box is None:
            return found
        low, high = (end.reshape(len(self), -1) for end in self.ends)
        found = np.maximum(found, linear_on_box(coefficients, low, high))
        if self.norm != "l2":
            return found
        down, up = self.steps
        p = _share(coefficients, down, up, np.array(self.eps))
        both = _by_split(coefficients, p, (down, up), round_up(self.eps * dual_norms(p, "l2"))) + at_centre
        both = below(both, sum_error(both))
        return np.maximum(found, np.where(np.isfinite(both), both, -np.inf))

    @property
    def steps(self) -> tuple[Float, Float]:
        """(B, n) bounds of what inputs differ from the centre by."""
        down, up = (end.reshape(len(self), -1) - self.centre.reshape(len(self), -1) for end in self.ends)
        return below(down, sum_error(down)), above(up, sum_error(up))

    @property
    def ends(self) -> tuple[Float, Float]:
        """The box around the region."""
        return self.lower, self.upper


def least_on_ellipsoid(c: Float, low: Float, high: Float, eps: Float, scale: Float) -> Float:
    """Return (B, S) lower bounds of c.d where d_i = scale_i e_i with |e| <= eps, and low <= d <= high.

    Args:
        c: (B, S, n).
        low, high: (B, n), holding zero; both zero where the scale is.
        eps: (B, 1) upper bounds. scale: (B, n) upper bounds, not negative.
    """
    safe, stretch = np.where(scale > 0, scale, 1.0), scale[:, None]
    p = _share(c * safe[:, None], low / safe, high / safe, eps) / safe[:, None]
    alone, shared = (round_up(eps * dual_norms(round_up(np.abs(a) * stretch), "l2")) for a in (c, p))
    both = _by_split(c, p, (low, high), shared)
    found = np.maximum(-alone, linear_on_box(c, low, high))
    return np.maximum(found, np.where(np.isfinite(both), both, -np.inf))


def _by_split(c: Float, p: Float, box: tuple[Float, Float], reach: Float) -> Float:
    """Return (B, S) lower bounds of c.d on a box (B, n), for any p of which |p.d| <= reach is known."""
    q = c - p
    lost = over((sum_error(q) @ np.maximum(-box[0], box[1])[..., None])[..., 0], c.shape[2] + 2)
    on_box = linear_on_box(q, *box)
    return below(on_box, round_up(reach + lost + sum_error(on_box), 4))


def _share(c: Float, down: Float, up: Float, eps: Float) -> Float:
    """Return the part of c that the ball should bear; not rigorous, and need not be."""
    low, high = down[:, None], up[:, None]
    length = np.sqrt(np.square(c).sum(axis=2))
    t = eps / np.where(length > 0, length, 1.0)
    for _ in range(_SPLITS):
        wanted = -t[..., None] * c
        free = (wanted > low) & (wanted < high)
        room = eps * eps - np.square(np.where(free, 0.0, np.clip(wanted, low, high))).sum(axis=2)
        left = np.square(np.where(free, c, 0.0)).sum(axis=2)
        t = np.where((room > 0) & (left > 0), np.sqrt(np.abs(room) / np.where(left > 0, left, 1.0)), t)
    share: Float = np.clip(-t[..., None] * c, low, high) / -t[..., None]
    return np.where(np.isfinite(share), share, c)


def linear_on_box(coefficients: Float, low: Float, high: Float) -> Float:
    """Return (B, S) lower bounds of linear functions (B, S, n) on boxes (B, n).

    With centre m and radius r of the box, c.x >= c.m - |c|.r, and |fl(c.m) - c.m| <= gamma_n |c|.|m| + n eta: one
    product with |c| takes both.
    """
    count = low.shape[1]
    mid, radius = middle(low, high)
    spread = radius + gamma(count) * np.abs(mid)
    spread = np.where(spread == 0, 0.0, round_up(spread, 4))
    value = (coefficients @ mid[..., None])[..., 0]
    error = (np.abs(coefficients) @ spread[..., None])[..., 0]
    return below(value, over(error, 2 * count + 4))
