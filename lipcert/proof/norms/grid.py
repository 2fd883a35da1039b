"""Frequencies of a torus Z_N1 x Z_N2 x ... and the roots of unity that belong to them.

A function on the torus has the characters exp(2 pi i w.a), w.a = sum over axes of w_j a_j / N_j. Real functions have
conjugate coefficients at w and -w, so one frequency of each such pair says it all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from lipcert.network.enclosure import Float
from lipcert.proof.norms.geometry import Indices
from lipcert.proof.norms.roots import cos_sin


def half(points: Sequence[int]) -> Indices:
    """Return one frequency of each pair w, -w as (axes, count) integers, w = 0 first."""
    index = np.arange(math.prod(points)).reshape(tuple(points))
    partner = index[np.ix_(*((-np.arange(n)) % n for n in points))]
    return np.stack(np.unravel_index(index[index <= partner], tuple(points)))


def roots(points: Sequence[int]) -> tuple[Float, Float]:
    """Return cos and sin of 2 pi k / lcm(N) for all k, each within `roots.ROOT_ERROR`."""
    whole = math.lcm(*points)
    values = np.array([cos_sin(Fraction(k, whole)) for k in range(whole)])
    return values[:, 0], values[:, 1]


def turns(points: Sequence[int], shifts: Sequence[Sequence[int]], frequencies: Indices) -> Indices:
    """Return w.a for each frequency and tap, (count, taps), in units of 1 / lcm(N): exact integers.

    shifts: for each axis the shift of each tap along it; the taps are all combinations, in C order.
    frequencies: (axes, count).
    """
    whole = math.lcm(*points)
    total = np.zeros((frequencies.shape[1], 1), dtype=np.int64)
    for n, shift, w in zip(points, shifts, frequencies, strict=True):
        step = (w[:, None] * (np.array(shift) % n) % n) * (whole // n)
        total = ((total[:, :, None] + step[:, None, :]) % whole).reshape(len(w), -1)
    return total
