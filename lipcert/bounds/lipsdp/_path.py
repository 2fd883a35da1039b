"""Following the central path of max F s.t. Z(lambda, F) >= 0 with the dual barrier alone.

The path is y(mu): grad phi(y) = b / mu, with t = 1 / mu. Each iteration factorises one Hessian, at the point that
the predictor left; walks back to the path with it (gradients are cheap: `_to_path`); and predicts again.
A primal point comes for nothing: for the Newton step d(t) of `_newton` (1) the matrix

    X = mu (V - V dZ V) = mu V (Z - dZ) V                                                           (1)

satisfies tr(B_i X) = 0 and tr(C X C') = 1 exactly, because those equations *are* the Newton equations, and is
positive semidefinite iff Z - dZ is, which a block Cholesky decides. Its duality gap is

    tr(X Z) + (slacks) = mu (nu + g'd),   so   F* <= F + (nu - g'd_g) / t + b'd_g                    (2)

with the largest t for which (1) is feasible. No dense X is formed or stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from lipcert.bounds.lipsdp._barrier import factor_at
from lipcert.bounds.lipsdp._centre import Inverse, Linear, Point, approach
from lipcert.bounds.lipsdp._clock import TimeUp
from lipcert.bounds.lipsdp._newton import Local
from lipcert.bounds.lipsdp._predictor import predict
from lipcert.bounds.lipsdp._result import LipSdpStatus
from lipcert.bounds.lipsdp._system import System
from lipcert.bounds.lipsdp._tridiag import factorise

_NEAR = 0.6
_ON = 0.02
_SLOW = 0.7
_MAX_ITERATIONS = 100


@dataclass
class Best:
    """The best multipliers so far, their F (dual, from below) and the least upper bound on F* (primal)."""

    lam: torch.Tensor
    f: float = 0.0
    f_above: float = math.inf
    iterations: int = 0

    @property
    def gap(self) -> float:
        """Relative duality gap in terms of the Lipschitz bound F^(-1/2)."""
        if self.f <= 0.0 or not math.isfinite(self.f_above):
            return math.inf
        return math.sqrt(max(self.f_above / self.f, 1.0)) - 1.0


def best_f(system: System, lam: torch.Tensor) -> float:
    """The largest F for these multipliers: 1 / lambda_max(C Z(lambda, 0)^-1 C'); 0 where infeasible. O(N w^2)."""
    if bool(((lam <= 0) & (system.signed > 0)).any()):
        return 0.0
    factor = factorise(system.band(torch.cat([lam, lam.new_zeros(1)]), 1.0))
    if factor is None:
        return 0.0
    return float(torch.linalg.matrix_norm(factor.half(system.output_groups()), 2)) ** -2


def follow(system: System, y: torch.Tensor, best: Best, gap: float, progress: Callable[[Best], None]) -> LipSdpStatus:
    """From near the path to a relative gap; keeps `best` up to date and says why it stopped."""
    try:
        return _follow(system, y, best, gap, progress)
    except TimeUp:
        return LipSdpStatus.TIME_LIMIT


def _follow(system: System, y: torch.Tensor, best: Best, gap: float, progress: Callable[[Best], None]) -> LipSdpStatus:
    greed, stalled = 0.9, 0
    for _ in range(_MAX_ITERATIONS):
        factor = factor_at(system, y)
        local = None if factor is None else Local.at(system, y, factor)
        if local is None:
            return LipSdpStatus.NUMERICAL_LIMIT
        before = best.gap
        best.iterations += 1
        _record(system, y, local, best)
        progress(best)
        if best.gap <= gap:
            return LipSdpStatus.OPTIMAL
        stalled = 0 if best.gap < 0.9 * before else stalled + 1
        if stalled >= 6:
            return LipSdpStatus.NUMERICAL_LIMIT
        t = local.nearest
        y, inverse, there = _to_path(system, y, local, t)
        greed = min(0.95, greed + 0.02) if there else max(0.6, 0.85 * greed)
        if there:
            y = predict(system, y, inverse, t, greed)
    return LipSdpStatus.ITERATION_LIMIT


def _record(system: System, y: torch.Tensor, local: Local, best: Best) -> None:
    """Dual value of these multipliers and primal value (2), if better than before."""
    f = best_f(system, y[:-1])
    if f > best.f:
        best.lam, best.f = y[:-1].clone(), f
    t = _primal_t(system, y, local)
    if t > 0.0:
        above = float(y[-1]) + (system.degree - float(local.g @ local.d_g)) / t + float(local.d_g[-1])
        best.f_above = min(best.f_above, above)


def _primal_t(system: System, y: torch.Tensor, local: Local) -> float:
    """The largest t (to within some per cent) whose X of (1) and slacks are positive semidefinite; 0 if none."""
    z = system.band(y, 1.0)
    along_b, along_g = system.band(local.d_b, 0.0), system.band(local.d_g, 0.0)
    own = system.signed > 0

    def feasible(t: float) -> bool:
        slack = y[:-1] - t * local.d_b[:-1] + local.d_g[:-1]
        if bool((slack[own] <= 0).any()):
            return False
        return factorise(z.plus(-t, along_b).plus(1.0, along_g)) is not None

    low = local.nearest
    if low <= 0.0 or not feasible(low):
        return 0.0
    high = 2.0 * low
    while feasible(high) and high < 64.0 * low:
        low, high = high, 2.0 * high
    for _ in range(5):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if feasible(middle) else (low, middle)
    return low


def _to_path(system: System, y: torch.Tensor, local: Local, t: float) -> tuple[torch.Tensor, Inverse, bool]:
    """Secant steps to the path at t (gradients are cheap, Hessians are not), and whether they got there."""
    inverse, aim = Inverse(local.schur), Linear(t)
    start, size = Point.of(system, y, aim), math.inf
    if start is None:
        return y, inverse, False
    for point, now in approach(system, start, inverse, aim):
        y, before, size = point.y, size, now
        if size < _ON or _SLOW * before < size < _NEAR:
            break
    return y, inverse, size < _NEAR
