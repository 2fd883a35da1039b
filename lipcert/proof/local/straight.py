r"""Lines below and above piecewise linear activations on boxes, with any slopes.

A line s x + t is below f on [l, u] if t <= f(p) - s p at l, at u and at every kink p between them. So any slope is
admissible, whoever proposed it, and only the intercept is derived: its roundings are counted, and it is rounded down.
Values of f are those of `network.activations`, which round at most twice, u relative to the result each.

Curved activations: see `curved`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType

import numpy as np

from lipcert.network.activations import TABLE
from lipcert.network.enclosure import TINY, UNIT, Float, round_up
from lipcert.network.operators import Elementwise
from lipcert.proof.local.arithmetic import above, below, product_error, sum_error


@dataclass(frozen=True)
class Straight:
    """A piecewise linear activation.

    Attributes:
        kinks: (*parameters) -> the points where the slope may jump, which are float64 numbers.
        exact: whether its float64 values are never rounded.
        slopes: (*parameters) -> those of the pieces between the kinks, in order, exactly.
    """

    kinks: Callable[..., tuple[Float, ...]]
    exact: bool
    slopes: Callable[..., tuple[Float, ...]]


_ZERO, _ONE = np.array(0.0), np.array(1.0)


def _at_zero(*_: Float) -> tuple[Float, ...]:
    return (_ZERO,)


STRAIGHT: Mapping[str, Straight] = MappingProxyType(
    {
        "relu": Straight(_at_zero, True, lambda: (_ZERO, _ONE)),
        "leaky_relu": Straight(_at_zero, False, lambda slope: (slope, _ONE)),
        "abs": Straight(_at_zero, True, lambda: (-_ONE, _ONE)),
        "clip": Straight(lambda low, high: (low, high), True, lambda *_: (_ZERO, _ONE, _ZERO)),
        "softshrink": Straight(lambda width: (-width, width), False, lambda _: (_ONE, _ZERO, _ONE)),
    }
)


@dataclass(frozen=True)
class Lines:
    """Lines a x + b below and above an activation, float64 (B, 1 or S, n) each."""

    low_slope: Float
    low_intercept: Float
    high_slope: Float
    high_intercept: Float


def kinks(op: Elementwise) -> tuple[Float, ...]:
    """Return the kinks of an activation that has a row here, broadcastable to its node's shape."""
    return tuple(np.asarray(kink, dtype=np.float64) for kink in STRAIGHT[op.name].kinks(*op.params))


def pieces(op: Elementwise) -> tuple[Float, ...]:
    """Return the slopes between the kinks, one more than there are kinks, broadcastable to the node's shape."""
    return tuple(np.asarray(slope, dtype=np.float64) for slope in STRAIGHT[op.name].slopes(*op.params))


def value_range(op: Elementwise, low: Float, high: Float) -> tuple[Float, Float]:
    """Return bounds of an activation on boxes (B, *shape): f takes its extremes at ends and kinks."""
    _, values, errors = _points(op, low, high)
    return below(values, errors).min(axis=0), above(values, errors).max(axis=0)


def lines(op: Elementwise, low: Float, high: Float, slopes: tuple[Float, Float] | None = None) -> Lines:
    """Return lines of an activation on boxes.

    Args:
        op: an activation that has a row here.
        low, high: (B, *shape).
        slopes: (B, S, *shape) of the lines below and above; by default those that enclose the least area.
    """
    x, y, error = (part.reshape(len(part), len(low), 1, -1) for part in _points(op, low, high))
    if slopes is None:
        under, upper = supporting_slope(x, y), -supporting_slope(x, -y)
    else:
        under, upper = (slope.reshape(*slope.shape[:2], -1) for slope in slopes)
    return Lines(under, _intercept(x, y, error, under), upper, -_intercept(x, -y, error, -upper))


def values(op: Elementwise, x: Float) -> tuple[Float, Float]:
    """Return float64 values of an activation, and upper bounds of their errors."""
    y = TABLE[op.name].function(x, *op.params)
    if STRAIGHT[op.name].exact:
        return y, np.zeros_like(y)
    return y, np.where(x == 0, 0.0, 4.0 * UNIT * np.abs(y) + TINY)


def supporting_slope(x: Float, y: Float) -> Float:
    """Return the slope of the line below points (K, ...) that is highest at the middle of their range.

    The best line passes through two of the points, so their slopes are tried. Not rigorous, and need not be.
    """
    centre = (x.min(axis=0) + x.max(axis=0)) / 2
    best, found = np.full(centre.shape, -np.inf), np.zeros(centre.shape)
    for i, j in combinations(range(len(x)), 2):
        run = x[j] - x[i]
        slope = np.where(run != 0, (y[j] - y[i]) / np.where(run != 0, run, 1.0), 0.0)
        height = (y - slope * (x - centre)).min(axis=0)
        better = height > best
        best, found = np.where(better, height, best), np.where(better, slope, found)
    return np.where(np.isfinite(found), found, 0.0)


def _points(op: Elementwise, low: Float, high: Float) -> tuple[Float, Float, Float]:
    """Return ends and kinks of boxes, the values there, and upper bounds of the values' errors, (K, B, *shape)."""
    inner = (np.minimum(np.maximum(kink, low), high) for kink in kinks(op))
    x = np.stack([low, *inner, high])
    return x, *values(op, x)


def heights(x: Float, y: Float, error: Float, slope: Float) -> Float:
    """Return lower bounds of y - s x, for values y that may be off by some error."""
    product = slope * x
    value = y - product
    lost = error + product_error(slope, x, product) + sum_error(value)
    return below(value, np.where(lost == 0, 0.0, round_up(lost)))


def _intercept(x: Float, y: Float, error: Float, slope: Float) -> Float:
    """Return lower bounds of min_k y_k - s x_k for points (K, B, 1, n) and slopes (B, S, n)."""
    found = np.full(np.broadcast_shapes(x.shape[1:], slope.shape), np.inf)
    for x_k, y_k, error_k in zip(x, y, error, strict=True):
        found = np.minimum(found, heights(x_k, y_k, error_k, slope))
    return found
