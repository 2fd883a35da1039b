"""Lines of activations laid out as images, and functions of the outputs taken to functions of the inputs by them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lipcert.network.enclosure import Float
from lipcert.network.graph import Shape
from lipcert.proof.local.images import laid_out
from lipcert.proof.local.region import Mask
from lipcert.proof.local.straight import Lines
from lipcert.proof.local.windows import Windows

_TINY = 2.0**-30  # of the largest intercept: what need not be looked up where it is


@dataclass(frozen=True)
class Laid:
    """Lines of one sample, each (height, width, channels).

    Attributes:
        slope: of the lines below. rest: what those of the lines above have more.
        low, high: intercepts.
    """

    slope: Float
    rest: Float
    low: Float
    high: Float

    @staticmethod
    def of(lines: Lines, sample: int, shape: Shape) -> Laid:
        """Lay lines (B, 1, n) of a node of some shape out."""
        parts = (lines.low_slope, lines.high_slope, lines.low_intercept, lines.high_intercept)
        slope, upper, low, high = (laid_out(part[sample, 0], shape) for part in parts)
        return Laid(slope, upper - slope, low, high)

    def pull(self, functions: Windows) -> tuple[Float, Windows]:
        """Return constants (S,), and functions of the inputs, below functions of the outputs.

        a x turns into (s a + r min(a, 0)) x + t max(a, 0) + t' min(a, 0), with s + r the slope above. In a shared
        rectangle all of that is done everywhere. Windows of their own look up entries where lines matter; elsewhere
        r = 0, and |a| max(|t|, |t'|) is taken off.
        """
        if functions.is_shared:
            return self._pull_shared(functions)
        found, values = functions.times(self.slope), functions.values.reshape(-1)
        inner, outer = functions.shown(self._matters)
        a = values[inner]
        under, upper = np.minimum(a, 0.0), np.maximum(a, 0.0)
        found.values.reshape(-1)[inner] += under * self.rest.reshape(-1)[outer].astype(a.dtype, copy=False)
        constants = under * self.high.reshape(-1)[outer] + upper * self.low.reshape(-1)[outer]
        count = functions.values.shape[3]
        shift = np.asarray(np.bincount(inner % count, constants, minlength=count), dtype=np.float64)
        if self._remainder is not None:
            shift = shift - functions.like(np.abs(functions.values)).dot(self._remainder)
        return shift, found

    def _pull_shared(self, functions: Windows) -> tuple[Float, Windows]:
        a, shift = functions.rows, np.zeros(functions.values.shape[3])
        under = np.minimum(a, 0.0)
        if self._lifts[1]:
            shift = shift + functions.seen(self.high) @ under
        if self._lifts[0]:
            shift = shift + functions.seen(self.low) @ np.maximum(a, 0.0)
        under *= functions.seen(self.rest)[:, None]
        under += a * functions.seen(self.slope)[:, None]
        return shift, functions.like(under)

    @cached_property
    def _lifts(self) -> tuple[bool, bool]:
        """Whether any line below, and any above, has an intercept."""
        return bool(self.low.any()), bool(self.high.any())

    @cached_property
    def _intercept(self) -> Float:
        return np.maximum(np.abs(self.low), np.abs(self.high))

    @cached_property
    def _matters(self) -> Mask:
        return np.asarray((self.rest != 0) | ~(self._intercept <= _TINY * self._intercept.max()))

    @cached_property
    def _remainder(self) -> Float | None:
        """The intercepts elsewhere; None where all are zero."""
        left = np.where(self._matters, 0.0, self._intercept)
        return left if left.any() else None
