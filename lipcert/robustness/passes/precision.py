"""Floating-point formats of a deployed pass, and how it multiplies and adds in them.

float32 and float64 compute all of a dot product in the format itself. The others are options to be named by the user,
each with a model of its products:

* `FLOAT16`, `BFLOAT16`: the input of the network, its weights and every node's result are rounded to the format;
  products are exact and summed in float32. float16 keeps its subnormal numbers, bfloat16 may flush them.
* `TF32`: everything is float32, but the operands of a product are cut to 10 bits behind the leading one. The unit is
  that of truncation, 2^-10, which covers rounding to nearest too.

Sums of tensor cores are truncated, and each addend is aligned to the largest before (Fasi, Higham, Mikaitis & Pranesh
2021, "Numerical behavior of NVIDIA tensor cores"): up to four times the unit of float32 per addition. So their unit
here is 2^-22, which covers sums that round to nearest in any order all the more. Sums in a shorter format than
float32 are not covered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from lipcert.network.enclosure import Float


@dataclass(frozen=True)
class Sums:
    """How dot products are formed where that is not done in the format itself.

    Attributes:
        unit, tiny: of the additions. cut: relative error with which each operand of a product is cut before.
        words: the same for people.
    """

    unit: float
    tiny: float
    cut: float
    words: str


@dataclass(frozen=True)
class Precision:
    """A floating-point format.

    Attributes:
        name: as users write it. unit: unit roundoff. tiny: largest absolute error of a result that underflows.
        limit: half a quarter of the largest number. sums: None where sums are in the format itself.
    """

    name: str
    unit: float
    tiny: float
    limit: float
    sums: Sums | None = None

    @property
    def casts_inputs(self) -> bool:
        """Whether float32 inputs are rounded to the format."""
        return self.unit > 2.0**-24

    def holds(self, numbers: Float) -> bool:
        """Whether all numbers have a significand of the format; those below its range cost `tiny` all the same."""
        scaled = np.frexp(numbers)[0] / self.unit  # significands of p bits, unit 2^-p
        return bool((scaled == np.round(scaled)).all())

    @property
    def words(self) -> str:
        """The arithmetic in words."""
        return self.name if self.sums is None else f"{self.name} ({self.sums.words})"


_IN_FLOAT32 = "products summed in float32, rounded or cut, in any order"
_CUT = f"operands of products cut to 10 bits, {_IN_FLOAT32}"
FLOAT32 = Precision("float32", 2.0**-24, 2.0**-126, 2.0**126)
FLOAT64 = Precision("float64", 2.0**-53, 2.0**-1022, 2.0**1022)
FLOAT16 = Precision("float16", 2.0**-11, 2.0**-24, 2.0**14, Sums(2.0**-22, 2.0**-126, 0.0, _IN_FLOAT32))
BFLOAT16 = Precision("bfloat16", 2.0**-8, 2.0**-126, 2.0**126, Sums(2.0**-22, 2.0**-126, 0.0, _IN_FLOAT32))
TF32 = Precision("tf32", 2.0**-24, 2.0**-126, 2.0**126, Sums(2.0**-22, 2.0**-126, 2.0**-10, _CUT))
PRECISIONS: Mapping[str, Precision] = MappingProxyType({p.name: p for p in (FLOAT32, FLOAT64, FLOAT16, BFLOAT16, TF32)})


def gamma_up(count: float, unit: float) -> float:
    """Return an upper bound of gamma_count, infinite where it is not defined."""
    product = count * unit  # exact: unit is a power of two
    return up(product / (1.0 - product)) if product < 0.5 else math.inf


def up(value: float) -> float:
    """Return an upper bound of a non-negative number that took at most a hundred roundings."""
    return math.nextafter(value * (1.0 + 2.0**-40), math.inf)


def compound(*errors: float) -> float:
    """Return an upper bound of (1 + e_1) (1 + e_2) ... - 1; infinite beyond 1, where nothing is known of a result."""
    total = 0.0
    for error in errors:
        total = total + error + total * error
    return up(total) if total < 1.0 else math.inf
