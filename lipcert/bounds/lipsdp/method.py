"""`lipsdp`: all multipliers jointly optimal, by the interior-point method of this package."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import ClassVar

import numpy as np

from lipcert.bounds.chain import lifted_obstacle
from lipcert.bounds.eclipse_fast import EclipseFast
from lipcert.bounds.effort import solver_device
from lipcert.bounds.lipsdp._result import LipSdpResult, LipSdpStatus
from lipcert.bounds.lipsdp._solve import solve_lipsdp
from lipcert.bounds.method import Method, Proposal, Solver, derive
from lipcert.bounds.product import Product
from lipcert.bounds.targets import propose_target, provable_target
from lipcert.errors import InconclusiveError
from lipcert.network.enclosure import Float
from lipcert.network.graph import Network
from lipcert.proof.claims import Norm
from lipcert.proof.lifted import Lifted, lift
from lipcert.proof.narrow import narrowed
from lipcert.proof.refusal import Refused
from lipcert.proof.rules.multipliers import Multipliers

GAP = 4e-8  # relative duality gap to stop at
SOLVER = "lipcert interior point"


class LipSdp(Method):
    """The best bound of the multiplier rule: maximises F over all multipliers."""

    name: ClassVar[str] = "lipsdp"
    summary: ClassVar[str] = "all multipliers jointly optimal (LipSDP, interior-point method)"
    norms: ClassVar[frozenset[Norm]] = Multipliers.norms
    cost: ClassVar[str] = "per iteration N^3/3 for N hidden neurons, ten to sixty iterations; five N x N matrices"

    def refuses(self, network: Network, norm: Norm) -> str | None:
        """Return why the network has no lifted form of affordable size, or None; looks at shapes only."""
        return lifted_obstacle(network)

    def propose(self, network: Network, norm: Norm, time_limit: float | None) -> Proposal:
        """Propose the best multipliers found within the limit; they are feasible at every moment."""
        end = math.inf if time_limit is None else time.monotonic() + time_limit
        with np.errstate(all="ignore"):  # what is not finite is refused by the rule
            return self._propose(network, norm, end)

    def _propose(self, network: Network, norm: Norm, end: float) -> Proposal:
        lifted = narrowed(lift(network))
        closed = _closed_form(lifted)
        target = provable_target(lifted, closed)
        reach = fixed_slopes_norm(lifted)
        excess = target**-0.5 / reach - 1.0 if reach > 0 and target > 0 else math.inf
        if excess <= GAP:
            solver = Solver(SOLVER, "optimal at the start", max(excess, 0.0))
            return propose_target(closed, target, solver, ("the closed-form multipliers are optimal already",))
        if time.monotonic() >= end:
            note = "closed-form multipliers: the time limit was reached before the solver began"
            return propose_target(closed, target, Solver(SOLVER, LipSdpStatus.TIME_LIMIT.value), (note,))
        try:
            result = solve_lipsdp(lifted, gap=GAP, time_limit=end - time.monotonic(), device=solver_device(network))
        except np.linalg.LinAlgError:
            note = "closed-form multipliers: the solver's start over- or underflows float64"
            return propose_target(closed, target, None, (note,))
        solver = Solver(SOLVER, result.status.value, result.gap if math.isfinite(result.gap) else None)
        found = _better(lifted, (closed, target), result, solver)
        return _constant(network, norm, found) if result.status is LipSdpStatus.CONSTANT else found


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
    jacobians: list[Float] = [np.eye(lifted.inputs)]
    for block in lifted.blocks:
        slope = np.where(np.abs(block.alpha) > block.beta, block.alpha, block.beta)
        jacobians.append(slope[:, None] * sum(w.mid @ jacobians[j] for j, w in block.row.items()))
    whole = sum(w.mid @ jacobians[j] for j, w in lifted.output.items())
    return float(np.linalg.norm(whole, 2))
