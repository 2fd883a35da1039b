"""The environment guard: no derivation without IEEE 754 arithmetic.

Every `verified` number assumes that float64 is binary64, rounds to nearest even, keeps subnormal numbers, and
that matrix products obey |fl(AB) - AB| <= gamma_n |A||B| (Higham, ch. 3). Other code in the process can break
this: ``torch.set_flush_denormal(True)``, a changed rounding mode, ``-ffast-math`` libraries that set
flush-to-zero when loaded, a BLAS that emulates float64 with shorter numbers. The guard looks at results, in
Python scalars, in numpy's vector code and in BLAS, and takes well under a millisecond, so it runs before
each derivation and nothing is remembered.

What it cannot see: processor faults, and worker threads of BLAS other than those that the probe used. The
arithmetic of `proof` keeps its numbers of order 1 and counts `TINY` for each underflow, so that flushing to
zero alone, in a thread that the probe missed, would not break a bound.
"""

from __future__ import annotations

import sys
from functools import cache

import numpy as np
import numpy.typing as npt

from lipcert.network.enclosure import Float
from lipcert.proof.refusal import Refused

_LANES = 16  # more than any vector register holds, so that vector code runs
_SIZE = 80  # beyond the size up to which BLAS stays in one thread, with 80 * 2^23 * 2^23 < 2^53


def require_ieee() -> None:
    """Return if this thread computes as the proofs assume.

    Raises:
        Refused: it does not; says what is wrong.
    """
    info = sys.float_info
    if (info.radix, info.mant_dig, info.max_exp, info.min_exp) != (2, 53, 1024, -1021):
        raise Refused("float is not IEEE binary64 on this machine")
    with np.errstate(all="ignore"):
        for check in (_rounding, _subnormals, _roots, _products):
            reason = check()
            if reason:
                raise Refused(f"the arithmetic of this process is not IEEE 754: {reason}")


def _lanes(value: float) -> Float:
    return np.full(_LANES, value)


def _rounding() -> str:
    half = 2.0**-53
    cases = (  # (a, b, nearest-even a + b)
        (1.0, half, 1.0),
        (1.0 + 2 * half, half, 1.0 + 4 * half),
        (-1.0, -half, -1.0),
        (-1.0 - 2 * half, -half, -1.0 - 4 * half),
        (1.0, half * (1 + 2.0**-12), 1.0 + 2 * half),  # lost when 64-bit registers round twice
        (-1.0, -half * (1 + 2.0**-12), -1.0 - 2 * half),
    )
    for a, b, expected in cases:
        if a + b != expected or not (_lanes(a) + _lanes(b) == expected).all():
            return "sums are not rounded once to the nearest even float64"
    third, above = float.fromhex("0x1.5555555555555p-2"), _lanes(1.0 + 2.0**-52)
    if not ((_lanes(1.0) / 3.0 == third).all() and (above * above == 1.0 + 2.0**-51).all()):
        return "quotients or products are not rounded once to the nearest even float64"
    return ""


def _subnormals() -> str:
    smallest, tiny = 5e-324, sys.float_info.min
    scalars = tiny * 0.5 == 2.0**-1023 and smallest * 2.0**1000 == 2.0**-74
    halves = _lanes(tiny) * 0.5
    vectors = (halves == 2.0**-1023).all() and (halves * 2.0**1000 == 2.0**-23).all()
    vectors = vectors and (_lanes(2.0**-600) * 2.0**-450 == 2.0**-1050).all()
    if not (scalars and vectors and halves.all()):
        return "subnormal numbers are flushed to zero (torch.set_flush_denormal(True), perhaps); turn that off"
    return ""


def _roots() -> str:
    expected = float.fromhex("0x1.6a09e667f3bcdp+0")
    return "" if (np.sqrt(_lanes(2.0)) == expected).all() else "square roots are not rounded to nearest"


def _products() -> str:
    a, b, expected = _probe()
    if not np.array_equal(a @ b, expected):
        return "matrix products of numpy are not computed in full float64"
    subnormal = np.full((4, 4), 2.0**-1060) @ np.eye(4)
    if not (subnormal == 2.0**-1060).all():
        return "matrix products of numpy flush subnormal numbers to zero"
    return ""


@cache
def _probe() -> tuple[Float, Float, Float]:
    """Return A, B and AB, where every float64 dot product is exact in any order, and no other arithmetic is.

    Entries are 23-bit integers, so all partial sums are below 2^53. Rows of A and columns of B carry powers
    of two from 2^-240 to 2^240: an algorithm that mixes rows (Strassen) or shares exponents (Ozaki) loses
    the small ones. Only the inputs and the right answer are kept; the product itself is computed anew at
    each call.
    """
    index = np.arange(_SIZE * _SIZE, dtype=np.int64).reshape(_SIZE, _SIZE)
    left = (index * 2654435761 + 12345) % 2**23 - 2**22
    right = (index * 1597334677 + 54321) % 2**23 - 2**22
    exact: npt.NDArray[np.int64] = left @ right
    rows = 2.0 ** ((np.arange(_SIZE) * 37) % 481 - 240)
    columns = 2.0 ** ((np.arange(_SIZE) * 61) % 481 - 240)
    return left * rows[:, None], right * columns, exact * rows[:, None] * columns
