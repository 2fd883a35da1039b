"""`lipsdp`: all multipliers jointly optimal, by the interior-point method of this package."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

import numpy as np

from lipcert.bounds.chain import Chain, chain_of, obstacle
from lipcert.bounds.eclipse_fast import EclipseFast
from lipcert.bounds.lipsdp._result import LipSdpResult
from lipcert.bounds.lipsdp._solve import solve_lipsdp
from lipcert.bounds.method import Method, Proposal, Solver
from lipcert.bounds.targets import propose_target
from lipcert.errors import InconclusiveError
from lipcert.network.activations import slope_interval
from lipcert.network.graph import Network
from lipcert.network.operators import Elementwise
from lipcert.proof.claims import Norm
from lipcert.proof.lifted import Lifted, lift
from lipcert.proof.rules.multipliers import Multipliers

GAP = 1e-7  # relative duality gap to stop at; the room that the rule needs is of the same order
MOST_NEURONS = 12_000  # four matrices of this order take 4.6 GiB


class LipSdp(Method):
    """The best bound of the multiplier rule: maximises F over all multipliers."""

    name: ClassVar[str] = "lipsdp"
    summary: ClassVar[str] = "all multipliers jointly optimal (LipSDP, interior-point method)"
    norms: ClassVar[frozenset[Norm]] = Multipliers.norms
    cost: ClassVar[str] = "per iteration N^3/3 for N hidden neurons, ten to sixty iterations; four N x N matrices"

    def refuses(self, network: Network, norm: Norm) -> str | None:
        """Return why the network is not a chain of affordable size, or None."""
        neurons = sum(node.size for node in network.nodes if isinstance(node.op, Elementwise))
        if neurons > MOST_NEURONS:
            return f"{neurons} hidden neurons need more memory than is sensible ({MOST_NEURONS} at most)"
        return obstacle(network) or _linear_neurons(network)

    def propose(self, network: Network, norm: Norm, time_limit: float | None) -> Proposal:
        """Propose the best multipliers found within the limit; they are feasible at every moment."""
        lifted = lift(network)
        chain = chain_of(lifted)
        fast = EclipseFast().propose(network, norm, None)
        reach = fixed_slopes_norm(chain)
        excess = float(fast.witness["inverse_square"][0]) ** -0.5 / reach - 1.0 if reach > 0 else math.inf
        if excess <= GAP:
            solver = Solver("lipcert interior point", "optimal at the start", max(excess, 0.0))
            return replace(fast, solver=solver, notes=("the closed-form multipliers are optimal already",))
        limit = math.inf if time_limit is None else time_limit
        result = solve_lipsdp([*chain.weights, chain.last], chain.alpha, chain.beta, gap=GAP, time_limit=limit)
        solver = Solver(
            "lipcert interior point", result.status.value, result.gap if math.isfinite(result.gap) else None
        )
        return _better(fast, lifted, result, solver)


def _better(fast: Proposal, lifted: Lifted, result: LipSdpResult, solver: Solver) -> Proposal:
    """Return what the solver found, or the closed form where that proves more, and say so."""
    try:
        found = propose_target(lifted, result.lam, solver, (result.status.text,))
    except InconclusiveError as error:
        return replace(
            fast, solver=solver, notes=(f"closed-form multipliers, as the solver's came to nothing: {error}",)
        )
    if found.witness["inverse_square"][0] >= fast.witness["inverse_square"][0]:
        return found
    return replace(fast, solver=solver, notes=("closed-form multipliers, as they prove more than the solver's",))


def fixed_slopes_norm(chain: Chain) -> float:
    """Return a lower bound (estimate) of what any multipliers can give: the norm with every slope at its largest size.

    Slopes fixed within their intervals satisfy every inequality that the theorem uses, so its bound holds for that
    linear network too.
    """
    product = np.eye(chain.last.shape[1])  # of the layers so far, from the output back
    for weight, alpha, beta in zip(chain.weights[::-1], chain.alpha[::-1], chain.beta[::-1], strict=True):
        product = product * np.where(np.abs(alpha) > beta, alpha, beta) @ weight
    return float(np.linalg.norm(chain.last @ product, 2))


def _linear_neurons(network: Network) -> str | None:
    """Return which activation has neurons that are exactly linear, for which the barrier has no interior."""
    for node in network.nodes:
        if isinstance(node.op, Elementwise):
            alpha, beta = slope_interval(node.op)
            if not (alpha < beta).all():
                return f"some neurons of '{node.name}' are linear (slopes alpha = beta)"
    return None
