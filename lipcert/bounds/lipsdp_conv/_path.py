r"""Following the central path of max F s.t. Z_w(lambda, F) >= 0 for all w, with the dual barrier alone.

The path is grad phi(y) = t b, b the unit vector of F, t = 1 / mu. At an interior y let g, H be gradient and Hessian,
d_b = H^-1 b, d_g = H^-1 g. Then the Newton step to t is d(t) = t d_b - d_g, the nearest point of the path has
t* = b'd_g / b'd_b, and the decrement delta(t)^2 = (t b - g)' H^-1 (t b - g).

Gap. X_w = mu V (Z_w - dZ_w) V satisfies the constraints of the primal problem exactly, because these are the Newton
equations, and is >= 0 if delta(t) <= 1. Its value, nu the degree of the barrier, gives

    F* <= F + (nu - g'd_g) / t + b'd_g

Predictor. The path is analytic in mu up to mu = 0; with v = t H^-1 b and mu' = (1 - s) mu,

    y(mu') = y + s v + s^2 (v - a) + O(s^3),     a = H^-1 D^3 phi[v, v] / 2

where D^3 phi[v, v] is a second difference of gradients. (`lipsdp` follows its path in the same way.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from lipcert.bounds.lipsdp._newton import line_search
from lipcert.bounds.lipsdp._schur import Schur
from lipcert.bounds.lipsdp_conv._family import Family

Stop = Callable[[], bool]

BACK_OFF = 0.7
BACK = (0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3)
NEAR = 0.4
GREED = 0.9
MOST_STEPS = 60


def centre(family: Family, y: torch.Tensor, kappa: float, stop: Stop) -> torch.Tensor:
    """Damped Newton on phi(y) - kappa log F from an interior y with F > 0: towards the path at mu = F / kappa.

    Far from the path, steps run along the boundary and the least eigenvalues shrink with each of them, until nothing
    moves. A step back towards the first point, as far as the function falls, makes them large again: Z is affine in y.
    """
    first = y
    for _ in range(MOST_STEPS):
        factors = family.factors(y)
        if factors is None or stop():
            return y
        g, h, f = family.gradient(y, factors), family.hessian(y), float(y[-1])
        g[-1] -= kappa / f
        h[-1, -1] += kappa / f**2
        schur = Schur.of(h)
        if schur is None:
            return y
        d: torch.Tensor = -schur.solve(g)
        decrement = math.sqrt(max(-float(g @ d), 0.0))
        if decrement < NEAR:
            return y + d / (1.0 + decrement)
        cap = 8.0 if d[-1] >= 0 else min(8.0, f / -float(d[-1]))
        length = _length(family, y, d, cap, kappa)
        y = y + length * d
        if length < 1.0:
            falls = _slope(family, y, first - y, kappa)
            y = y + next((a for a in BACK if falls(a) <= 0.0), 0.0) * (first - y)
    return y


def _length(family: Family, y: torch.Tensor, d: torch.Tensor, cap: float, kappa: float, t: float = 0.0) -> float:
    """Return where phi - kappa log F - t F is smallest along d, at most `BACK_OFF` of the way to the boundary."""
    return line_search(_slope(family, y, d, kappa, t), BACK_OFF * _reach(family, y, d, cap))


def _slope(family: Family, y: torch.Tensor, d: torch.Tensor, kappa: float, t: float = 0.0) -> Callable[[float], float]:
    """Return the derivative of phi - kappa log F - t F at y + a d along d, infinite outside, as a function of a."""

    def slope(a: float) -> float:
        point = y + a * d
        factors = family.factors(point)
        if factors is None or float(point[-1]) <= 0.0:
            return math.inf
        pull = kappa / float(point[-1]) + t
        return float(family.gradient(point, factors) @ d) - pull * float(d[-1])

    return slope


def _reach(family: Family, y: torch.Tensor, d: torch.Tensor, cap: float) -> float:
    """Return a step a <= cap with y + a d inside, near the largest one; Z(y + a d) is convex in a."""
    inside, outside, trial = 0.0, cap, cap
    for _ in range(40):
        if family.factors(y + trial * d) is not None:
            inside = trial
        else:
            outside = trial
        if outside - inside <= 0.05 * outside or inside == cap:
            break
        trial = 0.5 * (inside + outside)
    return inside


@dataclass(frozen=True)
class Local:
    """Gradient, factorised Hessian, the directions d_b and d_g, t* and the decrement there, at one interior point."""

    g: torch.Tensor
    schur: Schur
    d_b: torch.Tensor
    d_g: torch.Tensor

    @classmethod
    def at(cls, family: Family, y: torch.Tensor) -> Local | None:
        """Return the local model, or None where y is outside or the Hessian not numerically positive definite."""
        factors = family.factors(y)
        schur = None if factors is None else Schur.of(family.hessian(y))
        if factors is None or schur is None:
            return None
        g = family.gradient(y, factors)
        return cls(g, schur, schur.solve(_unit(y)), schur.solve(g))

    @property
    def nearest(self) -> float:
        """t*."""
        return float(self.d_g[-1] / self.d_b[-1])

    @property
    def decrement(self) -> float:
        """delta(t*)."""
        return math.sqrt(max(float(self.g @ self.d_g) - self.nearest * float(self.d_g[-1]), 0.0))

    def above(self, f: float, degree: float) -> float:
        """Return the upper bound on F of the module's text, infinite where delta(t*) is not below 1."""
        t = self.nearest
        if self.decrement >= 1.0 or t <= 0.0:
            return math.inf
        return f + (degree - float(self.g @ self.d_g)) / t + float(self.d_g[-1])


def _unit(y: torch.Tensor) -> torch.Tensor:
    b = torch.zeros_like(y)
    b[-1] = 1.0
    return b


def recentred(family: Family, y: torch.Tensor, local: Local) -> torch.Tensor:
    """Return the point after one damped Newton step to t*."""
    t = local.nearest
    if local.decrement < 1.0:
        return _chord(family, y, local, t)
    d = t * local.d_b - local.d_g
    return y + _length(family, y, d, 16.0, 0.0, t) * d


def predicted(family: Family, y: torch.Tensor, local: Local) -> torch.Tensor:
    """Return a point a long way along the curve of the module's text, `GREED` of the way to the boundary."""
    t = local.nearest
    y = _chord(family, y, local, t)
    here = family.factors(y)
    if here is None:
        raise ArithmeticError("a point that was inside is not")
    b = t * _unit(y)
    v: torch.Tensor = local.schur.solve(b)
    step = 0.1 / math.sqrt(float(b @ v))
    ahead, behind = (family.factors(y + k * step * v) for k in (1.0, -1.0))
    curve = torch.zeros_like(y)
    if ahead is not None and behind is not None:
        plus, minus = family.gradient(y + step * v, ahead), family.gradient(y - step * v, behind)
        third = (plus + minus - 2.0 * family.gradient(y, here)) / step**2
        curve = v - 0.5 * local.schur.solve(third)
    low, high = 0.0, 1.0
    for _ in range(5):
        middle = 0.5 * (low + high)
        inside = family.factors(y + middle * v + middle**2 * curve) is not None
        low, high = (middle, high) if inside else (low, middle)
    s = min(GREED * low, 1.0 - 1e-3)
    return y + s * v + s * s * curve


def _chord(family: Family, y: torch.Tensor, local: Local, t: float) -> torch.Tensor:
    """Newton steps to t with the Hessian of the first point: gradients are cheap, Hessians are not."""
    g, size = local.g, math.inf
    for _ in range(5):
        rest = t * _unit(y) - g
        d = local.schur.solve(rest)
        now = math.sqrt(max(float(rest @ d), 0.0))
        factors = family.factors(y + d) if now <= 0.7 * size else None
        if factors is None:
            break
        y, size = y + d, now
        if now < 0.02:
            break
        g = family.gradient(y, factors)
    return y
