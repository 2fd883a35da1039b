r"""Cosines and sines of rational angles with a proved error: no trust in libraries of this machine.

cos and sin of 2 pi p / q are summed as alternating Taylor series in integers scaled by 2^160, at angles
reduced exactly to [0, pi/4]; pi comes from Machin's formula, pi = 16 atan(1/5) - 4 atan(1/239), in the same
integers. Fewer than 100 truncations of less than 2^-158 each go into pi (times 20) and fewer than 100 into
the sums, so a sum is within 2^-140. One rounding to float64 of a number in [-1, 1] adds 2^-54: together at
most `ROOT_ERROR` = 2^-53.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache

ROOT_ERROR = 2.0**-53

_BITS = 160
_ONE = 1 << _BITS


@cache
def _pi() -> int:
    return 16 * _atan_inverse(5) - 4 * _atan_inverse(239)


def _atan_inverse(n: int) -> int:
    """Return atan(1 / n), scaled."""
    power, total, k = _ONE // n, 0, 0
    while power:
        total += (-1) ** k * (power // (2 * k + 1))
        power //= n * n
        k += 1
    return total


def _series(angle: int, degree: int) -> int:
    """Return cos (first degree 0) or sin (first degree 1) of an angle in [0, pi/4], all scaled."""
    size, sign, total = (angle if degree else _ONE), 1, 0
    while size:
        total += sign * size
        degree += 2
        size = ((size * angle >> _BITS) * angle >> _BITS) // (degree * (degree - 1))
        sign = -sign
    return total


def cos_sin(turn: Fraction) -> tuple[float, float]:
    """Return cos and sin of 2 pi turn, each within `ROOT_ERROR`; exact at multiples of a quarter turn."""
    turn %= 1
    octant = int(turn * 8)
    rest = turn - Fraction(octant, 8)
    if octant % 2:  # measured from the other end of the octant
        rest = Fraction(1, 8) - rest
    angle = 2 * _pi() * rest.numerator // rest.denominator
    c, s = _series(angle, 0), _series(angle, 1)
    x, y = ((c, s), (s, c), (-s, c), (-c, s), (-c, -s), (-s, -c), (s, -c), (c, -s))[octant]
    return x / _ONE, y / _ONE
