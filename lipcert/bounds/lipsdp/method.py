"""`lipsdp`: all multipliers jointly optimal, by the interior-point method of this package."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import ClassVar

import numpy as np

from lipcert.bounds.chain import lifted_obstacle
from lipcert.bounds.eclipse_fast import EclipseFast
from lipcert.bounds.effort import MOST_BYTES, joint, solver_device
from lipcert.bounds.lipsdp._clock import Clock
from lipcert.bounds.lipsdp._descent import descend
from lipcert.bounds.lipsdp._result import LipSdpResult, LipSdpStatus
from lipcert.bounds.lipsdp._solve import solve_lipsdp
from lipcert.bounds.method import Method, Proposal, Solver, derive
from lipcert.bounds.product import Product
from lipcert.bounds.targets import forms, propose_target, provable_target
from lipcert.errors import InconclusiveError
from lipcert.network.enclosure import Float
from lipcert.network.graph import Network
from lipcert.proof.claims import Norm
from lipcert.proof.lifted import Lifted
from lipcert.proof.refusal import Refused
from lipcert.proof.rules.multipliers import Multipliers

GAP = 4e-8  # relative duality gap to stop at
SOLVER, GRADIENTS = "lipcert interior point", "lipcert L-BFGS"
SAFE = 2.0  # times what Newton's method needs by its estimate, or else it is not begun
PROOF = 4.0  # times a floating-point target, for one more and the rule's own lifted form and proof (measured: 3.1, 3.4)


class LipSdp(Method):
    """The best bound of the multiplier rule: maximises F over all multipliers."""

    name: ClassVar[str] = "lipsdp"
    summary: ClassVar[str] = "all multipliers jointly optimal (LipSDP, interior-point method)"
    norms: ClassVar[frozenset[Norm]] = Multipliers.norms
    cost: ClassVar[str] = (
        "per iteration N^3/3 for N hidden neurons, ten to sixty iterations, five N x N matrices; "
        "where that is too much, gradients alone, n^3 per layer each"
    )

    def refuses(self, network: Network, norm: Norm) -> str | None:
        """Return why the network has no lifted form of affordable size, or None; looks at shapes only."""
        return lifted_obstacle(network)

    def propose(self, network: Network, norm: Norm, time_limit: float | None) -> Proposal:
        """Propose the best multipliers found within the limit; they are feasible at every moment.

        The limit covers the lifted form, the closed form, the solver and the rule's proof of what is proposed: so much
        is kept back for that as its first step took for the closed form. Only these two are done whatever the limit.
        """
        end = math.inf if time_limit is None else time.monotonic() + time_limit
        with np.errstate(all="ignore"):  # what is not finite is refused by the rule
            return self._propose(network, norm, end)

    def _propose(self, network: Network, norm: Norm, end: float) -> Proposal:
        chain, lifted = forms(network)
        closed = _closed_form(chain)
        began = time.monotonic()
        target = provable_target(lifted, closed)
        end -= PROOF * (time.monotonic() - began)
        reach = fixed_slopes_norm(lifted)
        excess = target**-0.5 / reach - 1.0 if reach > 0 and target > 0 else math.inf
        if excess <= GAP:
            solver = Solver(SOLVER, "optimal at the start", max(excess, 0.0))
            return propose_target(closed, target, solver, ("the closed-form multipliers are optimal already",))
        if time.monotonic() >= end:
            note = "closed-form multipliers: the time limit was reached before the solver began"
            return propose_target(closed, target, Solver(SOLVER, LipSdpStatus.TIME_LIMIT.value), (note,))
        try:
            result = _solved(network, lifted, closed, end - time.monotonic())
        except np.linalg.LinAlgError:
            note = "closed-form multipliers: the solver's start over- or underflows float64"
            return propose_target(closed, target, None, (note,))
        solver = Solver(SOLVER, result.status.value, result.gap if math.isfinite(result.gap) else None)
        if result.status is LipSdpStatus.GRADIENTS:
            solver = replace(solver, name=GRADIENTS)
        found = _better(lifted, (closed, target), result, solver)
        return _constant(network, norm, found) if result.status is LipSdpStatus.CONSTANT else found


def _solved(network: Network, lifted: Lifted, closed: list[Float], seconds: float) -> LipSdpResult:
    """Return the best multipliers, by gradients alone where Newton's method may not get there in time or memory.

    Raises:
        numpy.linalg.LinAlgError: gains over- or underflow.
    """
    device, need = solver_device(network), joint(network)
    if SAFE * need.seconds <= seconds and need.bytes <= MOST_BYTES:
        return solve_lipsdp(lifted, gap=GAP, time_limit=seconds, device=device)
    return descend(lifted, closed, Clock(seconds), device)


def _closed_form(lifted: Lifted) -> list[Float]:
    """Return the multipliers of `eclipse-fast`.

    Raises:
        InconclusiveError: they over- or underflow.
    """
    try:
        return EclipseFast().multipliers(lifted)
    except np.linalg.LinAlgError:
        raise InconclusiveError("the layers' gains over- or underflow float64") from None


def _better(lifted: Lifted, closed: tuple[list[Float], float], result: LipSdpResult, solver: Solver) -> Proposal:
    """Return what the solver found, then the closed form for where nothing is proved; only that if it is better."""
    plain, target = closed
    found = provable_target(lifted, result.lam)
    if found < target or not found > 0.0:
        return propose_target(plain, target, solver, ("closed-form multipliers, as they prove more than the solver's",))
    proposal = propose_target(result.lam, found, solver, (result.status.text,))
    if not target > 0.0:
        return proposal
    note = "closed-form multipliers, as nothing can be proved with the solver's"
    return proposal.or_else([propose_target(plain, target, solver, (note,))])


def _constant(network: Network, norm: Norm, found: Proposal) -> Proposal:
    """Return the product of the norms for a constant network where it is better: only it can say 0."""
    product = Product().propose(network, norm, None)
    try:
        values = [derive(network, norm, p)[1].bound for p in (product, found)]
    except Refused:
        return found
    return replace(product, solver=found.solver, notes=found.notes) if values[0] <= values[1] else found


def fixed_slopes_norm(lifted: Lifted) -> float:
    """Return a lower bound (estimate) of what any multipliers can give: the norm with every slope at its largest size.

    Slopes fixed within their intervals satisfy every inequality that the theorem uses, so its bound holds for that
    linear network too.
    """
    seen = {j: w.mid for j, w in lifted.output.items()}  # the output, by the blocks that it still depends on
    for k in range(len(lifted.blocks), 0, -1):
        if k not in seen:
            continue
        block = lifted.blocks[k - 1]
        ahead = seen.pop(k) * np.where(np.abs(block.alpha) > block.beta, block.alpha, block.beta)
        for j, w in block.row.items():
            seen[j] = seen.get(j, 0.0) + ahead @ w.mid
    return float(np.linalg.norm(seen[0], 2)) if 0 in seen else 0.0
