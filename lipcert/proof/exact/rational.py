"""Exact decisions in rational numbers, for small matrices: singular ones too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flint import fmpq

Rational = Any  # flint.fmpq
MAX_SIDE = 48  # numbers grow with each pivot


def rational(value: float) -> Rational:
    """Return a finite float64 as the rational number that it is."""
    return fmpq(*value.as_integer_ratio())


def is_semidefinite(matrix: Sequence[Sequence[Rational]]) -> bool:
    """Decide A >= 0 by elimination: no pivot is negative, and the column of a zero pivot is zero.

    Only the lower triangle is read. Source: e.g. Higham, Accuracy and Stability, 2nd ed., sec. 10.3.
    """
    a, n = [list(row) for row in matrix], len(matrix)
    for k in range(n):
        if a[k][k] < 0 or (a[k][k] == 0 and any(a[i][k] != 0 for i in range(k + 1, n))):
            return False
        if a[k][k] == 0:
            continue
        for i in range(k + 1, n):
            factor = a[i][k] / a[k][k]
            for j in range(k + 1, i + 1):
                a[i][j] -= factor * a[j][k]
    return True
