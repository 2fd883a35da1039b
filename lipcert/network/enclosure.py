r"""Arrays known up to a radius: the arithmetic in which constants of a network are folded.

A network read from a file may compute its own weights: ``W / sigma``, ``gamma / sqrt(var + eps)``. The
real number that such an expression denotes need not be a float64. It is kept as an *enclosure*: a centre
``mid`` and a radius ``rad >= 0`` with ``|true - mid| <= rad`` entrywise. Exact values have radius 0, and stay
exact as long as the operations on them are exact (a float32 times a float32 is exact in float64), because the
error of a sum, product, quotient or root is *computed*, not estimated:

* ``TwoSum`` (Knuth): s = fl(a+b), and an exact e with s + e = a + b;
* ``TwoProduct`` (Dekker, Veltkamp): p = fl(ab), and an exact e with p + e = ab, barring over- and underflow;
* quotient q = fl(a/b): the residual a - qb is exactly representable (Markstein), so |a/b - q| = |a - qb| / |b|;
* root s = fl(sqrt a): a - s^2 is exactly representable, so |sqrt a - s| <= |a - s^2| / s.

Source: Muller et al., Handbook of Floating-Point Arithmetic, 2nd ed., ch. 4; Ogita, Rump & Oishi 2005.
Radii are themselves rounded up. Underflow is covered by adding `TINY`. Overflow, division by an enclosure of
zero and roots of what may be negative give an infinite or NaN centre or radius, in silence: `is_finite` is then
False, and every consumer refuses. The same holds beyond 2^996, where Veltkamp's splitting overflows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]

UNIT = 2.0**-53  # unit roundoff u of float64
TINY = 2.0**-1022  # smallest normal number; covers every error committed by an underflowing operation
LEAST = 2.0**-1074  # smallest positive number
_SPLIT = 2.0**27 + 1  # Veltkamp's constant
_SAFE = 2.0**-960  # products above this have an exactly representable rounding error


_quiet = np.errstate(all="ignore")  # overflow and NaN speak through `is_finite`


@_quiet
def round_up(value: Float, operations: int = 4) -> Float:
    """Return an upper bound of a non-negative quantity that took at most `operations` roundings.

    Each rounding has relative error u; only the last of them may underflow (error 2^-1075). Where others may, the
    caller adds `TINY` first. Zero becomes 2^-1074.

    With k operations the product is at least value (1 + (2 k + 2) u) (1 - u) >= value (1 + 2 k u), or at most 2^-1075
    below that where it is subnormal, and then the sum is exact; adding 2^-1074 covers both underflows. (One product and
    one sum instead of ``nextafter``, which costs ten times as much on arrays.)
    """
    return value * (1.0 + (2.0 * operations + 2.0) * UNIT) + LEAST


def gamma(count: int) -> float:
    """Return an upper bound of gamma_k = k u / (1 - k u): the relative error of k chained roundings.

    k u and 1 - k u are exact for k < 2^53, so only the quotient and the last product round.
    """
    if not 0 <= count < 2**40:
        raise ValueError(f"gamma is for fewer than 2^40 operations, not {count}")
    return float(np.nextafter(count * UNIT / (1.0 - count * UNIT) * (1.0 + 8.0 * UNIT), np.inf)) if count else 0.0


def _two_sum_error(a: Float, b: Float, s: Float) -> Float:
    bb = s - a
    return (a - (s - bb)) + (b - bb)


def _split(a: Float) -> tuple[Float, Float]:
    c = _SPLIT * a
    high = c - (c - a)
    return high, a - high


def _two_product_error(a: Float, b: Float, p: Float) -> Float:
    a_high, a_low = _split(a)
    b_high, b_low = _split(b)
    return a_low * b_low - (((p - a_high * b_high) - a_low * b_high) - a_high * b_low)


@dataclass(frozen=True, eq=False)
class Enclosure:
    """An array of real numbers, each known to lie within ``rad`` of ``mid``.

    Attributes:
        mid: float64 centres.
        rad: float64 radii of the same shape, or None where the value is exactly ``mid``.
    """

    mid: Float
    rad: Float | None = None

    @staticmethod
    def exact(value: npt.ArrayLike) -> Enclosure:
        """Enclose numbers that float64 holds exactly (booleans, float16/32/64, integers up to 2^53).

        Raises:
            ValueError: float64 cannot hold the numbers.
        """
        raw = np.asarray(value)
        if raw.dtype.kind not in "biuf" or raw.dtype.itemsize > 8:
            raise ValueError(f"numbers of type {raw.dtype} need not be exact in float64")
        if raw.dtype.kind in "iu" and raw.size and max(int(raw.max()), -int(raw.min())) > 2**53:
            raise ValueError("an integer beyond 2^53 is not exact in float64")
        return Enclosure(np.array(raw, dtype=np.float64))

    def __post_init__(self) -> None:
        object.__setattr__(self, "mid", _frozen(self.mid))  # arrays, where numpy returned scalars
        if self.rad is None:
            return
        rad = _frozen(self.rad)
        if rad.shape != self.mid.shape or (rad < 0).any():
            raise ValueError("the radii must be non-negative and of the shape of the centres")
        object.__setattr__(self, "rad", rad if rad.any() else None)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.mid.shape

    @property
    def is_exact(self) -> bool:
        """Whether every entry is known exactly."""
        return self.rad is None

    @property
    def radius(self) -> Float:
        """The radii, as an array even where they are all zero."""
        return np.zeros_like(self.mid) if self.rad is None else self.rad

    @property
    def is_finite(self) -> bool:
        """Whether all centres and radii are finite numbers."""
        return bool(np.isfinite(self.mid).all() and np.isfinite(self.radius).all())

    def magnitude(self) -> Float:
        """Return an upper bound of the absolute value of each entry."""
        if self.rad is None:
            return np.abs(self.mid)
        with np.errstate(over="ignore"):
            return np.nextafter(np.abs(self.mid) + self.rad, np.inf)

    def map(self, move: Callable[[Float], Any]) -> Enclosure:
        """Apply a function that only moves entries (reshape, transpose, slice, broadcast)."""
        rad = None if self.rad is None else np.asarray(move(self.rad), order="C")
        return Enclosure(np.asarray(move(self.mid), order="C"), rad)

    def reshape(self, *shape: int) -> Enclosure:
        """Return the same entries in another shape."""
        return self.map(lambda a: a.reshape(shape))

    def broadcast_to(self, shape: tuple[int, ...]) -> Enclosure:
        """Return the entries repeated to `shape` by numpy's rules."""
        return self.map(lambda a: np.broadcast_to(a, shape).copy())

    def __neg__(self) -> Enclosure:
        return Enclosure(-self.mid, self.rad)

    @_quiet
    def __add__(self, other: Enclosure) -> Enclosure:
        mid = self.mid + other.mid
        error = np.abs(_two_sum_error(self.mid, other.mid, mid))
        return Enclosure(mid, _total(error, self.rad, other.rad))

    def __sub__(self, other: Enclosure) -> Enclosure:
        return self + (-other)

    @_quiet
    def __mul__(self, other: Enclosure) -> Enclosure:
        a, b = np.broadcast_arrays(self.mid, other.mid)
        mid = a * b
        error = np.abs(_two_product_error(a, b, mid))
        error = np.where((np.abs(mid) < _SAFE) & (a != 0) & (b != 0), error + TINY, error)
        spread = [None if self.rad is None else round_up(np.abs(b) * self.rad + TINY)]
        spread.append(None if other.rad is None else round_up(np.abs(a) * other.rad + TINY))
        if self.rad is not None and other.rad is not None:
            spread.append(round_up(self.rad * other.rad + TINY))
        return Enclosure(mid, _total(error, *spread))

    def reciprocal(self) -> Enclosure:
        """Return 1 / self; entries whose enclosure contains zero become infinite (and are refused later)."""
        return Enclosure(np.ones_like(self.mid)) / self

    @_quiet
    def __truediv__(self, other: Enclosure) -> Enclosure:
        a, b = np.broadcast_arrays(self.mid, other.mid)
        mid = a / b
        product = mid * b
        # |a'/b' - q| <= (|a' - a| + |a - q b| + |q| |b' - b|) / |b'|
        numerator = np.abs((a - product) - _two_product_error(mid, b, product)) + self.radius
        if other.rad is not None:
            numerator = numerator + round_up(np.abs(mid) * other.rad)
        low = np.nextafter(np.abs(b) - other.radius, 0.0)  # lower bound of |b'|
        rad = np.where(numerator == 0, 0.0, round_up(numerator / low, 8))
        # for a below _SAFE the residual is no longer exact: give up rather than guess
        trusted = (a == 0) | (np.abs(a) >= _SAFE)
        return Enclosure(mid, np.where((low > 0) & trusted, rad, np.inf))

    @_quiet
    def sqrt(self) -> Enclosure:
        """Return the square root; entries that may be negative become infinite (and are refused later)."""
        mid = np.sqrt(self.mid)
        square = mid * mid
        # |sqrt a' - s| = |a' - s^2| / (sqrt a' + s) <= (|a - s^2| + |a' - a|) / s
        numerator = np.abs((self.mid - square) - _two_product_error(mid, mid, square)) + self.radius
        rad = np.where(numerator == 0, 0.0, round_up(numerator / mid, 8))
        trusted = (self.mid == 0) | (self.mid >= _SAFE)
        return Enclosure(mid, np.where((self.mid - self.radius >= 0) & trusted, rad, np.inf))

    @_quiet
    def __matmul__(self, other: Enclosure) -> Enclosure:
        """Matrix product in any summation order: |fl(AB) - AB| <= gamma_n |A||B|, n the inner length."""
        inner = self.mid.shape[-1]
        size = np.abs(self.mid) @ np.abs(other.mid)
        total = round_up(gamma(inner) * size * (1 + 2 * gamma(inner)) + inner * TINY)
        for left, right in ((self.rad, np.abs(other.mid)), (np.abs(self.mid), other.rad), (self.rad, other.rad)):
            if left is not None and right is not None:
                total = round_up(total + (left @ right) * (1 + 2 * gamma(inner)) + inner * TINY)
        return Enclosure(self.mid @ other.mid, total)


def _frozen(array: Float) -> Float:
    array = np.asarray(array)
    if array.dtype != np.float64:
        raise TypeError(f"an enclosure holds float64, not {array.dtype}; see Enclosure.exact")
    array.setflags(write=False)
    return array


def _total(error: Float, *radii: Float | None) -> Float | None:
    """Add radii, rounded up; None where everything is exact."""
    known = [radius for radius in radii if radius is not None]
    if not known and not error.any():
        return None
    total = error
    for radius in known:
        total = round_up(total + radius, 1)
    return np.array(total)
