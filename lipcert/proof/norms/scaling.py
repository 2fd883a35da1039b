"""Weights brought to order 1 by a power of two: exact, so bounds follow a change of scale exactly.

No bound here has an absolute epsilon: weights of 1e-30 and of 1e+30 are the same problem.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lipcert.network.enclosure import TINY, Enclosure, Float
from lipcert.proof.refusal import Refused


@dataclass(frozen=True, eq=False)
class Scaled:
    """Numbers times 2^-exponent, with magnitudes at most 1.

    Attributes:
        mid: centres. rad: radii, or None where all are exact. exponent: of two.
    """

    mid: Float
    rad: Float | None
    exponent: int

    @property
    def magnitude(self) -> Float:
        """Upper bounds of the absolute values."""
        return np.abs(self.mid) if self.rad is None else np.nextafter(np.abs(self.mid) + self.rad, np.inf)


def scaled(numbers: Enclosure) -> Scaled | None:
    """Return the scaled numbers, or None where all of them are exactly zero.

    Raises:
        Refused: a number is NaN or infinite.
    """
    if not numbers.is_finite:
        raise Refused("the weights have NaN or infinite numbers")
    largest = max(float(np.abs(numbers.mid).max(initial=0.0)), float(numbers.radius.max(initial=0.0)))
    if largest == 0.0:
        return None
    exponent = int(np.frexp(largest)[1])
    mid = np.ldexp(numbers.mid, -exponent)
    lost = (mid != 0) & (np.abs(mid) < TINY) | (mid == 0) & (numbers.mid != 0)  # below 2^-1022 of the largest
    rad = np.zeros_like(mid)
    if numbers.rad is not None:
        rad = np.where(numbers.rad > 0, np.nextafter(np.ldexp(numbers.rad, -exponent), np.inf), 0.0)
    rad = np.where(lost, np.nextafter(rad + TINY, np.inf), rad)
    return Scaled(mid, rad if rad.any() else None, exponent)
