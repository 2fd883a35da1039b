"""LipSDP with one multiplier per neuron, all jointly optimal, by a structured interior-point method.

    maximise F   subject to   Z(lambda, F) = E_x'E_x + sum_i lambda_i B_i - F C'C >= 0

The pieces: reduce and normalise (`_reduce`), start near the central path (`_start`, `_newton.centre`), follow the
path to the gap asked for (`_path`). With N hidden neurons in layers of width w, one iteration costs one Cholesky
factorisation of the N x N Schur matrix (N^3/3 flops), O(N^2 w) to form it, and some dozens of block
tridiagonal factorisations of O(N w^2); memory is 4 matrices of N x N.

Every iterate is feasible for the dual, so the method can be stopped at any time. What it returns is a proposal:
the bound is to be re-derived from the multipliers by a rule of `proof/`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lipcert.bounds.lipsdp._chain import Chain
from lipcert.bounds.lipsdp._newton import centre
from lipcert.bounds.lipsdp._path import Best, best_f, follow
from lipcert.bounds.lipsdp._reduce import Array, reduce_chain, restore
from lipcert.bounds.lipsdp._result import LipSdpResult, LipSdpStatus
from lipcert.bounds.lipsdp._start import start

_FIRST_GAP = 10.0
"""Relative gap (in F) of the point where the path is entered."""


@dataclass(frozen=True)
class Progress:
    """Where the method is: after each iteration, in the units of the weights."""

    iteration: int
    value: float
    gap: float
    seconds: float


def solve_lipsdp(
    weights: Sequence[Array],
    alpha: Sequence[Array],
    beta: Sequence[Array],
    *,
    gap: float = 1e-6,
    time_limit: float = math.inf,
    device: str = "cpu",
    progress: Callable[[Progress], None] | None = None,
) -> LipSdpResult:
    """Propose multipliers for y = W_{l+1} phi_l(... phi_1(W_1 x)).

    Args:
        weights: W_1, ..., W_{l+1}, float64, l >= 1.
        alpha: lower slope of every hidden neuron, one vector per hidden layer.
        beta: upper slope, alpha < beta (a neuron with alpha = beta is linear: eliminate it first).
        gap: relative duality gap of the bound at which to stop.
        time_limit: seconds after which the best multipliers so far are returned. It is looked at between
            factorisations, one of which is always completed.
        device: a torch device; everything is float64 on any of them.
        progress: called after every iteration.
    """
    began = time.monotonic()
    ws, lower, upper = ([np.asarray(a, dtype=np.float64) for a in part] for part in (weights, alpha, beta))
    _check(ws, lower, upper)
    reduced = reduce_chain(ws, lower, upper, device)
    if reduced is None:
        ones = [np.ones(len(a)) for a in lower]
        return LipSdpResult(ones, 0.0, 0.0, 0.0, 0, time.monotonic() - began, LipSdpStatus.CONSTANT)
    unit = float(np.prod(reduced.scales))

    def tell(iteration: int, value: float, distance: float) -> None:
        if progress is not None:
            progress(Progress(iteration, value * unit, distance, time.monotonic() - began))

    with torch.no_grad():
        best, status = _optimise(reduced.chain, gap, lambda: time.monotonic() - began > time_limit, tell)
    live = [part.cpu().numpy() for part in reduced.chain.split(best.lam)]
    reach = [4.0 * np.maximum(np.abs(a), np.abs(b)) ** 2 for a, b in zip(lower, upper, strict=True)]
    lam = restore(reduced, live, best.f, ws, reach)
    return LipSdpResult(
        lam,
        unit * best.f**-0.5,
        unit * best.f_above**-0.5,
        best.gap,
        best.iterations,
        time.monotonic() - began,
        status,
    )


def _optimise(
    chain: Chain, gap: float, stop: Callable[[], bool], tell: Callable[[int, float, float], None]
) -> tuple[Best, LipSdpStatus]:
    """The best multipliers and F bounds in the units of `chain`, and why the method stopped there."""
    kappa = chain.degree / _FIRST_GAP
    begin = start(chain, kappa, stop)
    y, steps = centre(begin.chain, begin.y, kappa, stop)
    best = Best(y[:-1].clone(), best_f(begin.chain, y[:-1]), iterations=steps)

    def report(now: Best) -> None:
        tell(now.iterations, (now.f * begin.unit) ** -0.5, now.gap)

    status = LipSdpStatus(follow(begin.chain, y, best, gap, stop, report))
    lam = [part / s.square() for part, s in zip(chain.split(best.lam), begin.scale, strict=True)]
    return Best(torch.cat(lam), best.f * begin.unit, best.f_above * begin.unit, best.iterations), status


def _check(weights: list[Array], alpha: list[Array], beta: list[Array]) -> None:
    """Refuse what the method has no meaning for."""
    if len(weights) < 2 or not len(weights) - 1 == len(alpha) == len(beta):
        raise ValueError("LipSDP needs l + 1 weights and l slope vectors alpha and beta, l >= 1")
    for k, (w, a, b) in enumerate(zip(weights, alpha, beta, strict=False)):
        if w.ndim != 2 or weights[k + 1].ndim != 2 or weights[k + 1].shape[1] != w.shape[0]:
            raise ValueError(f"LipSDP: the shapes of weights {k} and {k + 1} do not fit together")
        if a.shape != (w.shape[0],) or b.shape != a.shape:
            raise ValueError(f"LipSDP: hidden layer {k} has {w.shape[0]} neurons, its slopes do not fit")
        if not bool(np.all(a < b)):
            raise ValueError(f"LipSDP: hidden layer {k} needs alpha < beta; eliminate neurons that are linear")
    if not all(bool(np.isfinite(x).all()) for x in (*weights, *alpha, *beta)):
        raise ValueError("LipSDP: weights and slopes must be finite")
