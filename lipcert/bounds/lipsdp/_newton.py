"""Newton steps on the barrier: the local model, the largest step inside, the centring of a start.

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

import torch

from lipcert.bounds.lipsdp._barrier import factor_at, gradient, hessian
from lipcert.bounds.lipsdp._clock import TimeUp
from lipcert.bounds.lipsdp._schur import Schur
from lipcert.bounds.lipsdp._system import System
from lipcert.bounds.lipsdp._tridiag import Factor

_BACK_OFF = 0.7
_CENTRED = 0.3
_MAX_STEPS = 80


@dataclass(frozen=True)
class Local:
    """Gradient, factorised Hessian and the two directions of (1) at one interior point."""

    factor: Factor
    g: torch.Tensor
    schur: Schur
    d_b: torch.Tensor
    d_g: torch.Tensor

    @classmethod
    def at(cls, system: System, y: torch.Tensor, factor: Factor) -> Local | None:
        """The local model, or None where H is not numerically positive definite."""
        g = gradient(system, y, factor)
        schur = Schur.of(hessian(system, y, factor))
        if schur is None:
            return None
        b = torch.zeros_like(y)
        b[-1] = 1.0
        return cls(factor, g, schur, schur.solve(b), schur.solve(g))

    @property
    def nearest(self) -> float:
        """t* of (2)."""
        return float(self.d_g[-1] / self.d_b[-1])

    @property
    def decrement(self) -> float:
        """delta of (2)."""
        bg, bb = float(self.d_g[-1]), float(self.d_b[-1])
        return math.sqrt(max(float(self.g @ self.d_g) - bg * bg / bb, 0.0))


def largest_step(system: System, y: torch.Tensor, d: torch.Tensor, cap: float, fine: int = 6) -> float:
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


def centre(system: System, y: torch.Tensor, kappa: float, enough: float = _CENTRED) -> tuple[torch.Tensor, int]:
    """Damped Newton on phi(y) - kappa log F from any interior y with F > 0; also the number of steps.

    Its minimum is the point of the central path with mu = F / kappa; the logarithm makes the function indifferent
    to the unit of F, which at the start is known to within orders of magnitude only. A line search to the very
    minimum along d would run into the boundary and stay there (decrement stuck at sqrt 2): at most 0.7 of the way.
    """
    for steps in range(_MAX_STEPS):
        try:
            moved, done = _centring_step(system, y, kappa, enough)
        except TimeUp:
            return y, steps
        y = moved
        if done:
            return y, steps + 1
    return y, _MAX_STEPS


def _centring_step(system: System, y: torch.Tensor, kappa: float, enough: float) -> tuple[torch.Tensor, bool]:
    """One step of `centre`, and whether it was the last one."""
    factor = factor_at(system, y)
    if factor is None:
        return y, True
    g = gradient(system, y, factor)
    h = hessian(system, y, factor)
    f = float(y[-1])
    g[-1] -= kappa / f
    h[-1, -1] += kappa / f**2
    schur = Schur.of(h)
    if schur is None:
        return y, True
    d = -schur.solve(g)
    decrement = math.sqrt(max(-float(g @ d), 0.0))

    def slope(a: float) -> float:
        point = y + a * d
        at = factor_at(system, point)
        if at is None or float(point[-1]) <= 0.0:
            return math.inf
        return float(gradient(system, point, at) @ d) - kappa * float(d[-1]) / float(point[-1])

    if decrement < enough:
        # inside by self-concordance
        return y + d / (1.0 + (decrement if decrement > _CENTRED else 0.0)), True
    cap = 8.0 if d[-1] >= 0 else min(8.0, f / -float(d[-1]))
    length = line_search(slope, _BACK_OFF * largest_step(system, y, d, cap))
    return y + length * d, length == 0.0
