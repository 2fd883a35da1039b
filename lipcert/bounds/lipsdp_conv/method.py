"""`lipsdp-conv`: all multipliers of a stretch of convolutions jointly optimal, one per channel."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from lipcert.bounds.lipsdp_conv._live import filled, live_channels, restricted
from lipcert.bounds.lipsdp_conv._solve import Result, solve
from lipcert.bounds.lipsdp_conv._spectrum import family_of
from lipcert.bounds.method import Method, Proposal, Solver
from lipcert.errors import InconclusiveError
from lipcert.network.enclosure import Float
from lipcert.network.graph import Network
from lipcert.proof.claims import Norm
from lipcert.proof.embedding import embed
from lipcert.proof.refusal import Refused
from lipcert.proof.rules.shift_invariant import ShiftInvariant, proves_all
from lipcert.proof.torus import Torus

GAP = 1e-6  # relative duality gap to stop at
MOST_MULTIPLIERS = 2000  # a stack of some dozen inverses of this order takes a few GiB
ROOM = (1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)  # relative room per layer, tried in turn


class LipSdpConv(Method):
    """The best bound of the shift-invariant rule: maximises F over one multiplier per channel."""

    name: ClassVar[str] = "lipsdp-conv"
    summary: ClassVar[str] = "stride-1 convolutions: one multiplier per channel, all jointly optimal, by frequencies"
    norms: ClassVar[frozenset[Norm]] = ShiftInvariant.norms
    cost: ClassVar[str] = "N^2 w for N channels in layers of w, times some 20 frequencies, times 40 to 150 iterations"

    def refuses(self, network: Network, norm: Norm) -> str | None:
        """Return why the network is not a chain of stride-1 convolutions of affordable size, or None."""
        try:
            torus = embed(network)
        except Refused as refusal:
            return str(refusal)
        return _obstacle(torus)

    def propose(self, network: Network, norm: Norm, time_limit: float | None) -> Proposal:
        """Propose the best multipliers found within the limit; they are feasible at every moment."""
        torus = embed(network)
        live = live_channels(torus)
        family = family_of(torus)
        try:
            with torch.no_grad():
                found = solve(restricted(family, live), GAP, math.inf if time_limit is None else time_limit)
        except (np.linalg.LinAlgError, LinAlgError):
            raise InconclusiveError("the layers' gains over- or underflow float64") from None
        multipliers = filled(torus, live, [part.numpy() for part in found.multipliers], found.f)
        return _proposal(torus, multipliers, found)


def _proposal(torus: Torus, multipliers: list[Float], found: Result) -> Proposal:
    """Return a witness that the rule proves, with twice the room that it needs here.

    Room: lambda_k times theta^k and F times theta^{l + 1} makes every Z(w) more definite. By induction P_k grows by
    theta^-k at most, as K = 1 / (2 lambda) - r S r becomes theta^-k (K + (1 - theta) r S r) or more.
    """
    gap = found.gap if math.isfinite(found.gap) else None
    solver = Solver("lipcert interior point by frequencies", found.status, gap)
    for room in ROOM:
        if proves_all(torus, *_shrunk(multipliers, found.f, 1.0 - room)):
            values, target = _shrunk(multipliers, found.f, 1.0 - 2.0 * room)
            witness = {"multipliers": np.concatenate(values), "inverse_square": np.array([target])}
            grid = " x ".join(map(str, torus.grid))
            return Proposal(ShiftInvariant.id, witness, solver, (f"one multiplier per channel on a {grid} torus",))
    raise InconclusiveError("no bound can be proved with the multipliers that were found")


def _shrunk(multipliers: list[Float], f: float, theta: float) -> tuple[list[Float], float]:
    shrunk = [values * theta**k for k, values in enumerate(multipliers, start=1)]
    return shrunk, f * theta ** (len(multipliers) + 1)


def _obstacle(torus: Torus) -> str | None:
    tail = () if torus.tail is None else torus.tail.blocks
    rows = [] if torus.tail is None else [*(block.row for block in tail), torus.tail.output]
    if any(set(row) != {k} for k, row in enumerate(rows)):
        return "what follows the pooling is not a chain"
    count = sum(torus.channels[1:]) + sum(block.size for block in tail)
    if count > MOST_MULTIPLIERS:
        return f"{count} multipliers need more memory than is sensible ({MOST_MULTIPLIERS} at most)"
    if not all((alpha < beta).all() for alpha, beta in torus.slopes):
        return "some channels are linear (slopes alpha = beta)"
    if not all(mask.any() for mask in live_channels(torus)):
        return "the network is constant"
    return None
