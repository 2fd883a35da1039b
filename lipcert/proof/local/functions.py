r"""Enclosures of exp, log(1 + t) and erf, from sums and products alone: no error of a library function is assumed.

**exp.** For |x| <= 600 let k be an integer near x / log 2 and r = x - k log 2, with log 2 = `_HIGH` + `_LOW` + d,
|d| < 2^-85. `_HIGH` has 32 bits and |k| < 2^10, so k `_HIGH` is exact; what else is rounded in r is below 0.75 u, as
|r| < 0.35. The Taylor polynomial of degree 14 misses e^r by less than r^15 / 15! e^r < 0.01 u. By Horner's rule,
p_n = 1 + (r / n) p_{n+1}, the error of p_n is at most u |p_n| + |r / n| (2.1 u |p_{n+1}| + that of p_{n+1}): below 4 u
for p_1, which is at least 0.7. Together less than 12 u relative to e^r, and 2^k is exact: `_EXP_ERROR` = 16 u. For an
argument known up to rho <= 1, e^rho - 1 <= 2 rho.

**log(1 + t).** A float64 y near it is only proposed: with 1 + e = (1 + t) exp(-y), log(1 + t) = y + log(1 + e), and
e - e^2 <= log(1 + e) <= e for |e| <= 1/2.

**erf.** erf x = 2 / sqrt(pi) e^(-x^2) sum_n x (2 x^2)^n / (1 3 ... (2n + 1)), all terms of one sign. From the n on at
which 2n + 3 >= 4 x^2, each is at most half the one before: the rest of the sum is no larger than its last term. Beyond
6, 1 - erf x is below 2^-55.

A test holds them against ball arithmetic.
"""

from __future__ import annotations

import numpy as np

from lipcert.network.enclosure import TINY, Enclosure, Float, gamma, round_up

_LOG2_E = 1.4426950408889634  # any number near it will do
_HIGH = float.fromhex("0x1.62e42feep-1")
_LOW = float.fromhex("0x1.a39ef35793c76p-33")
_EXP_ERROR = 2.0**-49
_EXP_RANGE = 600.0
_DEGREE = 14
_ERF_RANGE = 6.0
_ERF_TERMS = 400
TWO_OVER_ROOT_PI = Enclosure(np.array(1.1283791670955126), np.array(2.0**-52))


def exp(x: Enclosure) -> Enclosure:
    """Return e^x; nothing is known (an infinite radius) above 600, and of arguments known up to more than 1."""
    rho, usable = x.radius, (x.mid <= _EXP_RANGE) & (x.radius <= 1.0)
    z = np.where(usable & (x.mid >= -_EXP_RANGE), x.mid, 0.0)
    k = np.rint(z * _LOG2_E)
    r = (z - k * _HIGH) - k * _LOW
    p = np.ones_like(r)
    for n in range(_DEGREE, 0, -1):
        p = 1.0 + (r / n) * p
    value = np.ldexp(p, k.astype(np.int32))
    radius = round_up(value * (_EXP_ERROR + 2.0 * (1.0 + 2.0 * _EXP_ERROR) * rho) + TINY, 8)
    # e^-599 < 2^-863
    vanishing = usable & (x.mid < -_EXP_RANGE)
    value, radius = np.where(vanishing, 2.0**-864, value), np.where(vanishing, 2.0**-863, radius)
    return Enclosure(value, np.where(usable, radius, np.inf))


def log1p(t: Enclosure) -> Enclosure:
    """Return log(1 + t) for t in [0, 2]; nothing is known of others."""
    one = Enclosure.exact(1.0)
    y = np.log1p(np.where((t.mid >= 0) & (t.mid <= 2), t.mid, 0.0))
    rest = (one + t) * exp(Enclosure(-y)) - one
    size = rest.magnitude()
    radius = round_up(rest.radius + size * size + TINY, 4)
    return Enclosure(y) + Enclosure(rest.mid, np.where(size <= 0.5, radius, np.inf))


def erf(x: Enclosure) -> Enclosure:
    """Return erf x."""
    size = np.abs(x.mid)
    z = np.where(size <= _ERF_RANGE, size, 0.0)
    total, radius = _erf_sum(z)
    point = Enclosure(z)
    near = Enclosure(total, radius) * exp(-(point * point)) * TWO_OVER_ROOT_PI
    known = size <= _ERF_RANGE
    value, spread = np.where(known, near.mid, 1.0), np.where(known, near.radius, 2.0**-55)
    # slopes are at most 1.13
    spread = round_up(spread + 1.13 * x.radius, 4)
    return Enclosure(np.copysign(value, x.mid), np.where(np.isnan(size), np.inf, spread))


def _erf_sum(z: Float) -> tuple[Float, Float]:
    """Return the sum of the module's series for z in [0, 6], and how far it may be off."""
    double = 2.0 * z * z
    term, total, count, largest = z, z, 0, double.max(initial=0.0)
    while count < _ERF_TERMS:
        count += 1
        term = term * (double / (2.0 * count + 1.0))
        total = total + term
        if 2 * count + 3 >= 2.1 * largest and bool((term <= 2.0**-60 * total).all()):
            break
    else:
        term = np.full_like(z, np.inf)
    # every term took at most 5 roundings for each factor, 2 z^2 among them, and as many sums
    return total, round_up(gamma(8 * count) * total + term + count * TINY, 8)
