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
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lipcert.bounds.chain import top_eigenvalue
from lipcert.bounds.lipsdp._arrays import Array, copy, join, to_numpy, zeros
from lipcert.bounds.lipsdp._barrier import factor_at, positive
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
_WITHIN = 64.0


@dataclass
class Best:
    """The best multipliers so far, their F (dual, from below) and the least upper bound on F* (primal)."""

    lam: Array
    f: float = 0.0
    f_above: float = math.inf
    iterations: int = 0

    @property
    def gap(self) -> float:
        """Relative duality gap in terms of the Lipschitz bound F^(-1/2)."""
        if self.f <= 0.0 or not math.isfinite(self.f_above):
            return math.inf
        return math.sqrt(max(self.f_above / self.f, 1.0)) - 1.0


def best_f(system: System, lam: Array) -> float:
    """The largest F for these multipliers: 1 / lambda_max(C Z(lambda, 0)^-1 C'); 0 where infeasible. O(N w^2)."""
    if not positive(system, lam):
        return 0.0
    factor = factorise(system.band(join([lam, zeros((1,), lam)]), 1.0))
    if factor is None:
        return 0.0
    half = factor.half(system.output_groups())
    return 1.0 / top_eigenvalue(to_numpy(half.T @ half))


def follow(system: System, y: Array, best: Best, gap: float, progress: Callable[[Best], None]) -> LipSdpStatus:
    """From near the path to a relative gap; keeps `best` up to date and says why it stopped."""
    try:
        return _follow(system, y, best, gap, progress)
    except TimeUp:
        return LipSdpStatus.TIME_LIMIT


def _follow(system: System, y: Array, best: Best, gap: float, progress: Callable[[Best], None]) -> LipSdpStatus:
    greed, stalled = 0.9, 0
    for _ in range(_MAX_ITERATIONS):
        factor = factor_at(system, y)
        local = None if factor is None else Local.at(system, y, factor)
        if local is None:
            return LipSdpStatus.NUMERICAL_LIMIT
        before = best.gap
        best.iterations += 1
        _record(system, y, local, best, gap)
        progress(best)
        if best.gap <= gap:
            return LipSdpStatus.OPTIMAL
        stalled = 0 if best.gap < 0.9 * before else stalled + 1
        if stalled >= 6:
            return LipSdpStatus.NUMERICAL_LIMIT
        t = local.nearest
        point, inverse, there = _to_path(system, y, local, t)
        greed = min(0.95, greed + 0.02) if there else max(0.6, 0.85 * greed)
        y = predict(system, point, inverse, t, greed) if there else point.y
    return LipSdpStatus.ITERATION_LIMIT


def _record(system: System, y: Array, local: Local, best: Best, gap: float) -> None:
    """Dual value of these multipliers and primal value (2), if better than before.

    The largest t of (1) is sought only where the gap may be small enough with it: at most 64 times smaller.
    """
    f = best_f(system, y[:-1])
    if f > best.f:
        best.lam, best.f = copy(y[:-1]), f

    def seen_from(t: float) -> None:
        above = float(y[-1]) + (system.degree - float(local.g @ local.d_g)) / t + float(local.d_g[-1])
        best.f_above = min(best.f_above, above)

    ts = _primal_ts(system, y, local)
    t = next(ts, 0.0)
    if not t > 0.0:
        return
    seen_from(t)
    if gap < best.gap < _WITHIN * gap:
        *_, t = ts
        seen_from(t)


def _primal_ts(system: System, y: Array, local: Local) -> Iterator[float]:
    """Larger and larger t whose X of (1) and slacks are positive semidefinite, up to some per cent below the largest.

    None where the nearest is not.
    """
    z = system.band(y, 1.0)
    along_b, along_g = system.band(local.d_b, 0.0), system.band(local.d_g, 0.0)

    def feasible(t: float) -> bool:
        if not positive(system, y - t * local.d_b + local.d_g):
            return False
        return factorise(z.plus(-t, along_b).plus(1.0, along_g)) is not None

    low = first = local.nearest
    if low <= 0.0 or not feasible(low):
        return
    yield low
    high = 2.0 * low
    while high < _WITHIN * first and feasible(high):
        low, high = high, 2.0 * high
    for _ in range(5):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if feasible(middle) else (low, middle)
    yield low


def _to_path(system: System, y: Array, local: Local, t: float) -> tuple[Point, Inverse, bool]:
    """Secant steps to the path at t (gradients are cheap, Hessians are not), and whether they got there."""
    inverse, aim = Inverse(local.schur), Linear(t)
    g = copy(local.g)
    g[-1] -= t
    last, size = Point(y, local.factor, g), math.inf
    for point, now in approach(system, last, inverse, aim):
        last, before, size = point, size, now
        if size < _ON or _SLOW * before < size < _NEAR:
            break
    return last, inverse, size < _NEAR
