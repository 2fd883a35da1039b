"""Sums with their rounding errors, in float64, a sample at a time spoilt at most.

As `proof.rounding`, whose error bounds these are, but NaN and infinity are passed on instead of refused: they stay in
the sample that they arose in, and whoever takes the last number lets only finite ones count. Nothing here may hide
them: `np.maximum` and `np.minimum` pass NaN on, `np.fmax` would not.
"""

from __future__ import annotations

import numpy as np

from lipcert.network.enclosure import TINY, UNIT, Float, gamma, round_up


def over(value: Float, count: int) -> Float:
    """Return upper bounds of non-negative sums, given their float64 values.

    Args:
        value: results of at most `count` terms or roundings each, see `proof.rounding.inflate`.
        count: below 2^40.
    """
    return round_up(value * (1.0 + 2.0 * gamma(count)) + count * TINY, 4)


def below(value: Float, error: Float) -> Float:
    """Return lower bounds of value - error; exactly the value where the error is zero."""
    found: Float = np.where(error == 0, value, np.nextafter(value - error, -np.inf))
    return found


def above(value: Float, error: Float) -> Float:
    """Return upper bounds of value + error; exactly the value where the error is zero."""
    return -below(-value, error)


def middle(low: Float, high: Float) -> tuple[Float, Float]:
    """Return centres and radii of intervals that hold [low, high]; radii of points are zero."""
    mid = low + (high - low) / 2
    radius = np.maximum(mid - low, high - mid)
    return mid, np.where(radius == 0, 0.0, np.nextafter(radius, np.inf))


def product_error(a: Float, b: Float, value: Float) -> Float:
    """Return how far value = fl(a b) may be from a b; zero where a factor is 0 or +-1."""
    trivial = (a == 0) | (b == 0) | (np.abs(a) == 1) | (np.abs(b) == 1)
    return np.where(trivial, 0.0, 2.0 * UNIT * np.abs(value) + TINY)


def sum_error(value: Float) -> Float:
    """Return how far value = fl(a + b) may be from a + b: u |value|, zero where it is zero (no sum underflows)."""
    return UNIT * np.abs(value) * (1.0 + 2.0**-40)


def dual_norms(rows: Float, norm: str) -> Float:
    """Return upper bounds of the dual norms (of the ball's norm) of the vectors along the last axis."""
    size, count = np.abs(rows), rows.shape[-1]
    if norm == "linf":
        return over(size.sum(axis=-1), count)
    largest: Float = size.max(axis=-1, initial=0.0)
    if norm == "l1":
        return largest
    # scaled by a power of two so that squares neither overflow nor vanish: exact, but for what is 2^1022 times smaller
    # than the largest entry, whose loss `over` counts as underflow
    exponent = np.frexp(largest)[1]
    squares = np.square(np.ldexp(size, -exponent[..., None])).sum(axis=-1)
    length: Float = np.ldexp(round_up(np.sqrt(over(squares, count + 1))), exponent)
    return np.where(largest == 0, 0.0, round_up(np.where(np.isfinite(largest), length, np.inf)))
