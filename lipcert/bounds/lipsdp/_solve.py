"""LipSDP with one multiplier per neuron, all jointly optimal, by a structured interior-point method.

    maximise F   subject to   Z(lambda, F) = E_x'E_x + sum_i lambda_i B_i - F C'C >= 0

The pieces: reduce and normalise (`_reduce`), start near the central path (`_start`, `_newton.centre`), follow the
path to the gap asked for (`_path`). With N neurons in groups of width w, one iteration costs one Cholesky
factorisation of the N x N Schur matrix (N^3/3 flops), O(N^2 w) to form it, and some dozens of block
tridiagonal factorisations of O(N w^2); memory is 4 matrices of N x N.

Every iterate is feasible for the dual, so the method can be stopped at any time. What it returns is a proposal:
the bound is to be re-derived from the multipliers by a rule of `proof/`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lipcert.bounds.lipsdp._arrays import copy, to_numpy
from lipcert.bounds.lipsdp._centre import Logarithm, centre
from lipcert.bounds.lipsdp._clock import Clock
from lipcert.bounds.lipsdp._path import Best, best_f, follow
from lipcert.bounds.lipsdp._reduce import reduce_lifted
from lipcert.bounds.lipsdp._restore import restore
from lipcert.bounds.lipsdp._result import LipSdpResult, LipSdpStatus
from lipcert.bounds.lipsdp._start import Plan, start
from lipcert.bounds.lipsdp._system import System
from lipcert.network.enclosure import Float
from lipcert.proof.lifted import Lifted

_FIRST_GAP = 10.0
"""Relative gap (in F) of the point where the path is entered."""
_CONSTANT = 2.0**600
"""F, in the units of the reduced form, of a network whose output does not depend on its input."""


@dataclass(frozen=True)
class Progress:
    """Where the method is: after each iteration, in the units of the weights."""

    iteration: int
    value: float
    gap: float
    seconds: float


@np.errstate(all="ignore")  # what is not finite is no factor, and no multiplier that proves anything
def solve_lipsdp(
    lifted: Lifted,
    *,
    gap: float = 1e-6,
    time_limit: float = math.inf,
    device: str = "cpu",
    progress: Callable[[Progress], None] | None = None,
) -> LipSdpResult:
    """Propose multipliers for a lifted form, at the centres of its enclosures.

    Args:
        lifted: finite rows and slopes alpha <= beta.
        gap: relative duality gap of the bound at which to stop.
        time_limit: seconds after which the best multipliers so far are returned. It is looked at before every
            factorisation of Z and every block of the Schur matrix; only the walk layer by layer is always done, in
            its simplest form after the limit.
        device: ``cpu`` (numpy) or a device of torch; everything is float64 on any of them.
        progress: called after every iteration.

    Raises:
        ValueError: numbers that are not finite.
        numpy.linalg.LinAlgError: gains over- or underflow.
    """
    clock = Clock(time_limit)
    _check(lifted)
    reduced = reduce_lifted(lifted)
    exponent = reduced.exponents[-1]

    def result(lam: list[Float], best: Best, status: LipSdpStatus) -> LipSdpResult:
        full = restore(reduced, lifted, lam, best.f)
        value, primal = (float(np.ldexp(f**-0.5, exponent)) for f in (best.f, best.f_above))
        return LipSdpResult(full, value, primal, best.gap, best.iterations, clock.seconds, status)

    small = reduced.small
    if not small.blocks:
        norm = float(np.linalg.norm(small.output[0].mid, 2)) if small.output else 0.0
        f = norm**-2 if norm > 0 else _CONSTANT
        status = LipSdpStatus.LINEAR if norm > 0 else LipSdpStatus.CONSTANT
        return result([], Best(np.zeros(0), f, f), status)

    def tell(iteration: int, value: float, distance: float) -> None:
        if progress is not None:
            progress(Progress(iteration, float(np.ldexp(value, exponent)), distance, clock.seconds))

    return result(*_optimise(small, gap, tell, clock, device))


def _optimise(
    lifted: Lifted, gap: float, tell: Callable[[int, float, float], None], clock: Clock, device: str
) -> tuple[list[Float], Best, LipSdpStatus]:
    """The best multipliers and F bounds in the units of `lifted`, and why the method stopped there."""
    kappa = System.of(lifted, clock, device).degree / _FIRST_GAP
    begin = start(lifted, Plan(kappa, clock, device))
    y, steps = centre(begin.system, begin.y, Logarithm(kappa))
    f, lam = max(((best_f(begin.system, point[:-1]), point[:-1]) for point in (begin.y, y)), key=lambda pair: pair[0])
    best = Best(copy(lam), f, iterations=steps)

    def report(now: Best) -> None:
        tell(now.iterations, (now.f * begin.unit) ** -0.5, now.gap)

    status = follow(begin.system, y, best, gap, report)
    parts = zip(begin.system.split(best.lam), begin.scale, strict=True)
    lam = [to_numpy(part / scale**2) for part, scale in parts]
    return lam, Best(best.lam, best.f * begin.unit, best.f_above * begin.unit, best.iterations), status


def _check(lifted: Lifted) -> None:
    """Refuse what the method has no meaning for."""
    rows = [*(block.row for block in lifted.blocks), lifted.output]
    slopes = [side for block in lifted.blocks for side in (block.alpha, block.beta)]
    if not all(bool(np.isfinite(x).all()) for x in (*slopes, *(w.mid for row in rows for w in row.values()))):
        raise ValueError("LipSDP: weights and slopes must be finite")
    if not all(bool((block.alpha <= block.beta).all()) for block in lifted.blocks):
        raise ValueError("LipSDP: every neuron needs slopes alpha <= beta")
