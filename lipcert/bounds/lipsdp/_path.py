"""Following the central path of max F s.t. Z(lambda, F) >= 0 with the dual barrier alone.

The path is y(mu): grad phi(y) = b / mu, with t = 1 / mu. Each iteration factorises one Hessian, at the point that
the predictor left; walks back to the path with it (gradients are cheap: `_chord`); and predicts again.
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

from lipcert.bounds.lipsdp._barrier import factor_at, gradient
from lipcert.bounds.lipsdp._chain import Chain
from lipcert.bounds.lipsdp._newton import Local, Stop, largest_step, line_search
from lipcert.bounds.lipsdp._predictor import predict
from lipcert.bounds.lipsdp._tridiag import factorise

_NEAR = 0.6
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


def best_f(chain: Chain, lam: torch.Tensor) -> float:
    """The largest F for these multipliers: 1 / lambda_max(C P_l C'); 0 where they are infeasible. O(N w^2)."""
    factor = factor_at(chain, torch.cat([lam, lam.new_zeros(1)]))
    if factor is None:
        return 0.0
    gain = torch.linalg.solve_triangular(factor.pivots[-1], chain.last.mT, upper=False)
    return float(torch.linalg.matrix_norm(gain, 2)) ** -2


def follow(chain: Chain, y: torch.Tensor, best: Best, gap: float, stop: Stop, progress: Callable[[Best], None]) -> str:
    """From near the path to a relative gap; keeps `best` up to date and says why it stopped."""
    greed, stalled = 0.9, 0
    for _ in range(_MAX_ITERATIONS):
        factor = factor_at(chain, y)
        local = None if factor is None or stop() else Local.at(chain, y, factor)
        if local is None:
            return "time_limit" if stop() else "numerical_limit"
        before = best.gap
        best.iterations += 1
        _record(chain, y, local, best)
        progress(best)
        if best.gap <= gap:
            return "optimal"
        stalled = 0 if best.gap < 0.9 * before else stalled + 1
        if stalled >= 6:
            return "numerical_limit"
        t = local.nearest
        if local.decrement > _NEAR:
            greed = max(0.6, 0.85 * greed)
            y = _recentre(chain, y, local, t)
        else:
            y = predict(chain, _chord(chain, y, local, t), local, t, greed)
            greed = min(0.95, greed + 0.02)
    return "iteration_limit"


def _record(chain: Chain, y: torch.Tensor, local: Local, best: Best) -> None:
    """Dual value of these multipliers and primal value (2), if better than before."""
    f = best_f(chain, y[:-1])
    if f > best.f:
        best.lam, best.f = y[:-1].clone(), f
    t = _primal_t(chain, y, local)
    if t > 0.0:
        above = float(y[-1]) + (chain.degree - float(local.g @ local.d_g)) / t + float(local.d_g[-1])
        best.f_above = min(best.f_above, above)


def _primal_t(chain: Chain, y: torch.Tensor, local: Local) -> float:
    """The largest t (to within some per cent) whose X of (1) and slacks are positive semidefinite; 0 if none."""
    z = chain.band(y, 1.0)
    along_b, along_g = chain.band(local.d_b, 0.0), chain.band(local.d_g, 0.0)
    own = chain.signed > 0

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


def _recentre(chain: Chain, y: torch.Tensor, local: Local, t: float) -> torch.Tensor:
    """One damped Newton step on phi - t F, at most 0.7 of the way to the boundary."""
    d = t * local.d_b - local.d_g

    def slope(a: float) -> float:
        at = factor_at(chain, y + a * d)
        return math.inf if at is None else float(gradient(chain, y + a * d, at) @ d) - t * float(d[-1])

    return y + line_search(slope, 0.7 * largest_step(chain, y, d, 16.0)) * d


def _chord(chain: Chain, y: torch.Tensor, local: Local, t: float) -> torch.Tensor:
    """Newton steps to the path at t with the Hessian of the first point: gradients are cheap, Hessians are not."""
    g, size = local.g, math.inf
    for _ in range(5):
        rest = -g
        rest[-1] += t
        d = local.schur.solve(rest)
        now = math.sqrt(max(float(rest @ d), 0.0))
        if now > 0.7 * size:
            break
        moved = factor_at(chain, y + d)
        if moved is None:
            break
        y, size = y + d, now
        if now < 0.02:
            break
        g = gradient(chain, y, moved)
    return y
