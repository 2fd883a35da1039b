"""Matrices of real numbers in ball arithmetic: what `Enclosure` is to float64, with any number of bits.

A `Matrix` has centres and radii apart, as an `Enclosure` has, so that a radius can be treated as in the float64 engine
and does not grow in an elimination. Both are ``arb_mat``: each entry is a
ball that holds the number meant, its own rounding counted by Arb (Johansson 2017, "Arb: efficient
arbitrary-precision midpoint-radius interval arithmetic"). The number of bits is flint's working precision.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from flint import arb, arb_mat

from lipcert.network.enclosure import Enclosure, Float
from lipcert.proof.refusal import Refused, TooLarge
from lipcert.proof.rounding import fraction_up

Ball = Any  # flint.arb
Balls = Any  # flint.arb_mat
MAX_ENTRIES = 2**20  # of one matrix; beyond it the exact engine takes minutes


@dataclass(frozen=True, eq=False)
class Matrix:
    """Real numbers a_ij with |a_ij - mid_ij| <= rad_ij.

    Attributes:
        mid: centres. rad: radii, or None where all are zero.
    """

    mid: Balls
    rad: Balls | None = None

    @staticmethod
    def of(numbers: Enclosure) -> Matrix:
        """Return the same numbers: every float64 is a ball of radius zero."""
        return Matrix(balls(numbers.mid), None if numbers.rad is None else balls(numbers.rad))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.mid.nrows()), int(self.mid.ncols())

    def magnitude(self) -> Balls:
        """Return |mid| + rad."""
        return _plus(absolute(self.mid), self.rad)

    def __add__(self, other: Matrix) -> Matrix:
        return Matrix(self.mid + other.mid, other.rad if self.rad is None else _plus(self.rad, other.rad))


def balls(array: Float) -> Balls:
    """Return a float64 matrix (m, n) as exact balls.

    Raises:
        Refused: it is too large for this engine, or holds NaN or infinity.
    """
    if array.size > MAX_ENTRIES:
        raise TooLarge(f"a matrix of {array.size} entries is too large for the exact engine (at most {MAX_ENTRIES})")
    if not np.isfinite(array).all():
        raise Refused("the arithmetic met NaN or infinity, of which nothing can be derived")
    return arb_mat(*array.shape, array.ravel().tolist())


def absolute(matrix: Balls) -> Balls:
    """Return the absolute values."""
    return arb_mat(matrix.nrows(), matrix.ncols(), [abs(x) for x in matrix.entries()])


def diagonal(entries: Iterable[Ball]) -> Balls:
    """Return a diagonal matrix."""
    values = list(entries)
    matrix = arb_mat(len(values), len(values))
    for i, value in enumerate(values):
        matrix[i, i] = value
    return matrix


def upper(value: Ball) -> float:
    """Return the smallest float64 that is not below a ball.

    Raises:
        Refused: there is none.
    """
    if not value.is_finite():
        raise Refused("a bound is not a finite number")
    mantissa, exponent = value.upper().man_exp()
    return fraction_up(Fraction(int(mantissa)) * Fraction(2) ** int(exponent))


def largest(values: Iterable[Ball]) -> Ball:
    """Return the largest upper end of some balls, 0 where there are none; an exact number."""
    best = arb(0)
    for value in values:
        end = value.upper()
        best = end if not end <= best else best
    return best


def _plus(a: Balls, b: Balls | None) -> Balls:
    return a if b is None else a + b


def scale_rows(matrix: Balls, factors: Sequence[Ball]) -> Balls:
    """Return diag(factors) times a matrix."""
    rows = matrix.tolist()
    return arb_mat(matrix.nrows(), matrix.ncols(), [f * x for f, row in zip(factors, rows, strict=True) for x in row])
