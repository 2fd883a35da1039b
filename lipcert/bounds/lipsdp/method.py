"""`lipsdp`: all multipliers jointly optimal, by the interior-point method of this package."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from lipcert.bounds.chain import lifted_obstacle
from lipcert.bounds.eclipse_fast import EclipseFast
from lipcert.bounds.effort import solver_device
from lipcert.bounds.lipsdp._result import LipSdpResult, LipSdpStatus
from lipcert.bounds.lipsdp._solve import solve_lipsdp
from lipcert.bounds.method import Method, Proposal, Solver
from lipcert.bounds.product import Product
from lipcert.bounds.targets import largest_target, propose_target
from lipcert.errors import InconclusiveError
from lipcert.network.enclosure import Float
from lipcert.network.graph import Network
from lipcert.proof.claims import Norm
from lipcert.proof.inequality import assemble
from lipcert.proof.lifted import Lifted, lift
from lipcert.proof.refusal import Refused
from lipcert.proof.rules import RULES
from lipcert.proof.rules.multipliers import Multipliers

GAP = 1e-7  # relative duality gap to stop at; the room that the rule needs is of the same order
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
        lifted = lift(network)
        closed, target = _closed_form(lifted)
        reach = fixed_slopes_norm(lifted)
        excess = target**-0.5 / reach - 1.0 if reach > 0 and target > 0 else math.inf
        if excess <= GAP:
            solver = Solver(SOLVER, "optimal at the start", max(excess, 0.0))
            return propose_target(lifted, closed, solver, ("the closed-form multipliers are optimal already",))
        if time.monotonic() >= end:
            note = "closed-form multipliers: the time limit was reached before the solver began"
            return propose_target(lifted, closed, Solver(SOLVER, LipSdpStatus.TIME_LIMIT.value), (note,))
        try:
            result = solve_lipsdp(lifted, gap=GAP, time_limit=end - time.monotonic(), device=solver_device(network))
        except np.linalg.LinAlgError:
            note = "closed-form multipliers: the solver's start over- or underflows float64"
            return propose_target(lifted, closed, None, (note,))
        solver = Solver(SOLVER, result.status.value, result.gap if math.isfinite(result.gap) else None)
        found = _better(lifted, (closed, target), result, solver)
        return _constant(network, norm, found) if result.status is LipSdpStatus.CONSTANT else found


def _closed_form(lifted: Lifted) -> tuple[list[Float], float]:
    """Return the multipliers of `eclipse-fast` and their F in floating point.

    Raises:
        InconclusiveError: they over- or underflow.
    """
    try:
        multipliers = EclipseFast().multipliers(lifted)
    except np.linalg.LinAlgError:
        raise InconclusiveError("the layers' gains over- or underflow float64") from None
    return multipliers, _target(lifted, multipliers)


def _target(lifted: Lifted, multipliers: Sequence[Float]) -> float:
    """Return the F of these multipliers in floating point, 0 where there is none."""
    try:
        return largest_target(lifted, assemble(lifted, list(multipliers)))
    except InconclusiveError:
        return 0.0


def _better(lifted: Lifted, closed: tuple[list[Float], float], result: LipSdpResult, solver: Solver) -> Proposal:
    """Return what the solver found, or the closed form where that proves more, and say so."""
    plain, target = closed
    note = "closed-form multipliers, as they prove more than the solver's"
    found = _target(lifted, result.lam)
    if found >= target:
        try:
            return propose_target(lifted, result.lam, solver, (result.status.text,))
        except InconclusiveError as error:
            note = f"closed-form multipliers, as the solver's came to nothing: {error}"
    return propose_target(lifted, plain, solver, (note,))


def _constant(network: Network, norm: Norm, found: Proposal) -> Proposal:
    """Return the product of the norms for a constant network where it is better: only it can say 0."""
    product = Product().propose(network, norm, None)
    try:
        values = [RULES[p.rule].derive(network, norm, p.witness).bound for p in (product, found)]
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
