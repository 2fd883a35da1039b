"""Directed rounding: results that are never below (`_up`) or above (`_down`) the real number they stand for.

Scalars are computed exactly with `Fraction` and rounded once, so nothing is lost when a result is exact:
``product_up(1.0, x) == x``. Arrays take the plain float64 result and add the bound of its error:

* one operation, rounded to nearest: the true value is at most the next float up;
* a sum of k non-negative products in any order, with or without fused multiply-add:
  true <= fl (1 + 2 gamma_k) + k TINY, because fl >= true (1 - gamma_k) - k 2^-1075 and
  1 / (1 - gamma_k) <= 1 + 2 gamma_k for gamma_k <= 1/2.

Source: Higham, Accuracy and Stability of Numerical Algorithms, ch. 3.
NaN and infinity raise `Refused`, whether given or produced by overflow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction

import numpy as np

from lipcert.network.enclosure import TINY, Float, gamma, round_up
from lipcert.proof.refusal import Refused


def _exact(value: float) -> Fraction:
    if not math.isfinite(value):
        raise Refused(f"the arithmetic met {value}, of which nothing can be derived")
    return Fraction(value)


def _nearest(value: Fraction) -> float:
    try:
        return value.numerator / value.denominator  # correctly rounded, subnormal results too
    except OverflowError:
        raise Refused("a bound is too large for float64") from None


def fraction_up(value: Fraction) -> float:
    """Return the smallest float64 that is not below a rational number."""
    nearest = _nearest(value)
    return nearest if Fraction(nearest) >= value else _finite(math.nextafter(nearest, math.inf))


def fraction_down(value: Fraction) -> float:
    """Return the largest float64 that is not above a rational number."""
    return -fraction_up(-value)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise Refused("a bound is too large for float64")
    return value


def product_up(*factors: float) -> float:
    """Return the product of real numbers, rounded up once."""
    return fraction_up(math.prod(map(_exact, factors), start=Fraction(1)))


def product_down(*factors: float) -> float:
    """Return the product of real numbers, rounded down once."""
    return fraction_down(math.prod(map(_exact, factors), start=Fraction(1)))


def sum_up(terms: Iterable[float]) -> float:
    """Return the sum of real numbers, rounded up once."""
    return fraction_up(sum(map(_exact, terms), Fraction(0)))


def difference_down(a: float, b: float) -> float:
    """Return a - b, rounded down."""
    return fraction_down(_exact(a) - _exact(b))


def quotient_up(a: float, b: float) -> float:
    """Return a / b, rounded up.

    Raises:
        Refused: b is zero.
    """
    if b == 0:
        raise Refused("a bound would be divided by zero")
    return fraction_up(_exact(a) / _exact(b))


def sqrt_up(value: float) -> float:
    """Return the square root, rounded up.

    Raises:
        Refused: the number is negative.
    """
    square = _exact(value)
    if square < 0:
        raise Refused("a bound would be the root of a negative number")
    root = math.sqrt(value)
    while Fraction(root) ** 2 < square:
        root = math.nextafter(root, math.inf)
    return root


def norm_up(entries: Iterable[float]) -> float:
    """Return the l2 norm of a few real numbers, rounded up: exact sum of squares, one rounding, one root."""
    numbers = [_exact(x) for x in entries]
    shift = Fraction(2) ** -math.frexp(max((abs(float(x)) for x in numbers), default=0.0))[1]
    total = sum(((x * shift) ** 2 for x in numbers), Fraction(0))  # scaled, so that squares neither over- nor underflow
    return fraction_up(Fraction(sqrt_up(fraction_up(total))) / shift)


def scale_up(value: float, exponent: int) -> float:
    """Return value * 2^exponent: exact, or rounded up where the result is subnormal."""
    return fraction_up(_exact(value) * Fraction(2) ** exponent)


def scale_down(value: float, exponent: int) -> float:
    """Return value * 2^exponent: exact, or rounded down where the result is subnormal."""
    return fraction_down(_exact(value) * Fraction(2) ** exponent)


def inflate(value: Float, count: int) -> Float:
    """Return an upper bound of non-negative real sums, given their float64 values.

    Args:
        value: results of non-negative terms only, each with at most `count` terms; a term may be a product,
            so that it also covers `count` roundings of any products, quotients and sums of non-negative numbers.
        count: number of terms or roundings, below 2^40.
    """
    if not np.isfinite(value).all():
        raise Refused("the arithmetic met NaN or infinity, of which nothing can be derived")
    with np.errstate(over="ignore"):
        result = round_up(value * (1.0 + 2.0 * gamma(count)) + count * TINY, 4)
    if not np.isfinite(result).all():
        raise Refused("a bound is too large for float64")
    return result


def total_up(array: Float, axis: int = -1) -> Float:
    """Return upper bounds of the sums of non-negative entries along an axis."""
    return inflate(array.sum(axis=axis), array.shape[axis])


def matmul_up(a: Float, b: Float) -> Float:
    """Return an entrywise upper bound of the product of two non-negative matrices (or stacks of them)."""
    return inflate(a @ b, a.shape[-1])


def norms_up(array: Float) -> Float:
    """Return upper bounds of the l2 norms of the vectors along the last axis; entries of order 1 are expected."""
    with np.errstate(over="ignore"):
        squares = np.square(array).sum(axis=-1)
    return round_up(np.sqrt(inflate(squares, array.shape[-1] + 1)), 1)
