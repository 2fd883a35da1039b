"""An exact decision, as an oracle for tests."""

from __future__ import annotations

from fractions import Fraction


def is_exactly_psd(matrix) -> bool:
    """Decide A >= 0 by LDL' in rational numbers: no pivot is negative, and a zero pivot has a zero column."""
    a = [[Fraction(x) for x in row] for row in matrix]
    n = len(a)
    for k in range(n):
        if a[k][k] < 0 or (a[k][k] == 0 and any(a[i][k] for i in range(k + 1, n))):
            return False
        if a[k][k] == 0:
            continue
        for i in range(k + 1, n):
            factor = a[i][k] / a[k][k]
            for j in range(k + 1, n):
                a[i][j] -= factor * a[k][j]
    return True
