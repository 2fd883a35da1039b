"""Newton steps on the barrier: the local model, the largest step inside.

At an interior y let g, H be gradient and Hessian of phi, b = e_F, so that the central path is g(y) = t b
with t = 1/mu (math.md section 3). With d_b = H^-1 b and d_g = H^-1 g,

    Newton step to t:        d(t) = t d_b - d_g                                                      (1)
    nearest point of path:   t* = b'd_g / b'd_b,  decrement delta^2 = g'd_g - (b'd_g)^2 / b'd_b       (2)

One local model costs one Hessian and one Cholesky; everything else here is O(N w^2) or O(N^2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from lipcert.bounds.lipsdp._arrays import Array, unit
from lipcert.bounds.lipsdp._barrier import factor_at, gradient, hessian
from lipcert.bounds.lipsdp._schur import Schur
from lipcert.bounds.lipsdp._system import System
from lipcert.bounds.lipsdp._tridiag import Factor


@dataclass(frozen=True)
class Local:
    """Gradient, factorised Hessian and the two directions of (1) at one interior point."""

    factor: Factor
    g: Array
    schur: Schur
    d_b: Array
    d_g: Array

    @classmethod
    def at(cls, system: System, y: Array, factor: Factor) -> Local | None:
        """The local model, or None where H is not numerically positive definite."""
        g = gradient(system, y, factor)
        schur = Schur.of(hessian(system, y, factor))
        if schur is None:
            return None
        return cls(factor, g, schur, schur.solve(unit(len(y), -1, y)), schur.solve(g))

    @property
    def nearest(self) -> float:
        """t* of (2)."""
        return float(self.d_g[-1] / self.d_b[-1])

    @property
    def decrement(self) -> float:
        """delta of (2)."""
        bg, bb = float(self.d_g[-1]), float(self.d_b[-1])
        return math.sqrt(max(float(self.g @ self.d_g) - bg * bg / bb, 0.0))


def largest_step(system: System, y: Array, d: Array, cap: float, fine: int = 6) -> float:
    """A step a <= cap with y + a d inside, within 2^-fine of the largest one (Z(y + a d) is convex in a)."""
    inside, outside = 0.0, cap
    if factor_at(system, y + cap * d) is not None:
        return cap
    trial = 0.5 * cap
    while inside == 0.0:
        if factor_at(system, y + trial * d) is not None:
            inside = trial
        else:
            outside, trial = trial, 0.5 * trial
            if trial < 1e-9 * cap:
                return 0.0
    for _ in range(fine):
        trial = 0.5 * (inside + outside)
        if factor_at(system, y + trial * d) is not None:
            inside = trial
        else:
            outside = trial
    return inside


def line_search(slope: Callable[[float], float], longest: float) -> float:
    """Where a convex function with this slope is smallest on [0, longest], roughly (bisection on the slope)."""
    low, high = 0.0, longest
    if slope(high) <= 0.0:
        return high
    for _ in range(5):
        middle = 0.5 * (low + high)
        if slope(middle) <= 0.0:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)
