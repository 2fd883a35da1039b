r"""`anchored` and `local-lipsdp`: margins and constants on l2 balls from the multiplier rule.

A certificate at x compares x' only with x, so the sector of a neuron is that of its secants from z(x) (`sectors`),
much narrower than all slopes on the box. x is certified where margin_j > eps L_j for all rivals j, L_j from one set of
multipliers (`covariance`, `rounds`).

With all slopes on the box instead, L is a Lipschitz constant on the region: it compares any two points of it.

Sources: sector bounds around an equilibrium (Yin, Seiler & Arcak 2021), here around a sample; LipSDP (Fazlyab et al.
2019) with slopes of a region (Hashemi et al. 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lipcert.bounds.local import crown
from lipcert.bounds.local.covariance import all_rows, each_row
from lipcert.bounds.local.crown import Relaxed, relax_network
from lipcert.bounds.local.improvement import Goal, Positive, Small
from lipcert.bounds.local.margins import differences, outputs, proved
from lipcert.bounds.local.method import Bounds, LocalMethod
from lipcert.bounds.local.pruning import Slopes, any_two, from_centre
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.rounds import Found, Setting, constants, search
from lipcert.bounds.local.view import View
from lipcert.errors import UsageError
from lipcert.network.enclosure import Float
from lipcert.network.operators import Activation, Elementwise
from lipcert.proof.claims import Norm
from lipcert.proof.local import Proposal

STEPS = 24  # of `improvement`


@dataclass(frozen=True, eq=False)
class Margins:
    """Bounds of B samples, and the multipliers that prove them.

    Attributes:
        lows: (B, classes - 1) the better of CROWN's and those by multipliers.
        open: (O,) samples that CROWN leaves open.
        found: what was found for these.
    """

    lows: Tensor
    open: Tensor
    found: Found | None

    def multipliers(self, samples: Tensor, view: View) -> list[dict[int, Float]]:
        """Return sets of multipliers for some samples, zero for those that CROWN does not leave open."""
        place = torch.full((len(self.lows),), -1, dtype=torch.int64, device=samples.device)
        place[self.open] = torch.arange(len(self.open), device=samples.device)
        rows, sets = place[samples], []
        for logs in self.found.logs if self.found is not None else ():
            full = {}
            for node, log in logs.items():
                e = log.exp().nan_to_num(0.0, 0.0, 0.0)[rows] * (rows >= 0)[:, None]
                full[node] = e.reshape(len(rows), *view.nodes[node].shape).cpu().numpy()
            if any(e.any() for e in full.values()):
                sets.append(full)
        return sets


def search_margins(relaxed: Relaxed, labels: Tensor, steps: int, slopes: Slopes = from_centre) -> Margins:
    """Return lower bounds of all margins. Level: numerical.

    Args:
        relaxed: the network relaxed on l2 balls; its activations are elementwise.
        labels: (B,) int64.
        steps: of `improvement`, on samples that the first multipliers leave open; those that CROWN proves are left.
        slopes: `from_centre` or, looser, `any_two`.
    """
    lows = crown.margins(relaxed, labels)
    open_ = (~(lows.amin(dim=1) > 0)).nonzero()[:, 0]
    if not len(open_):
        return Margins(lows, open_, None)
    part, rows = relaxed.take(open_), differences(relaxed.view, labels[open_])
    setting = _setting(part, rows, slopes)
    at_centre = setting.at_centre
    found = search(setting, Positive(at_centre, setting.eps), steps)
    better = at_centre - setting.eps[:, None] * found.lengths
    lows[open_] = torch.fmax(lows[open_], better.to(lows.dtype))
    return Margins(lows, open_, found)


def margins(relaxed: Relaxed, labels: Tensor, steps: int, slopes: Slopes = from_centre) -> Tensor:
    """Return (B, classes - 1) bounds as `search_margins` does."""
    return search_margins(relaxed, labels, steps, slopes).lows


def row_constants(view: View, ball: Ball, rows: Tensor, steps: int = STEPS) -> Tensor:
    """Return local l2 Lipschitz constants of linear functions of the output (LipSDP on the region). Level: numerical.

    Args:
        view: the network; its activations are elementwise.
        ball: B l2 balls; the input box, where there is one, narrows the boxes.
        rows: (B, S, *output_shape) coefficients, as from `margins.differences`.
        steps: of the optimiser.

    Returns:
        (B, S): |row.f(x) - row.f(x')| <= it times ||x - x'||_2 for any two points of the region; infinite where
        nothing is proved, for samples that are not valid too.

    Raises:
        UsageError: the balls are not l2 balls, or an activation is not elementwise.
    """
    return _constants(view, ball, rows, Small(each_row), steps)


def local_constant(view: View, ball: Ball, steps: int = STEPS) -> Tensor:
    """Return (B,) local l2 Lipschitz constants of the whole network; all else as in `row_constants`."""
    return _constants(view, ball, outputs(view, len(ball)), Small(all_rows), steps)[:, 0]


@torch.no_grad()
def _constants(view: View, ball: Ball, rows: Tensor, goal: Goal, steps: int) -> Tensor:
    obstacle = _obstacle(view)
    if obstacle is not None or ball.norm != "l2":
        raise UsageError(f"'local-lipsdp': {obstacle or f'it bounds l2 constants on l2 balls, not {ball.norm}'}")
    return proved(constants(_setting(relax_network(view, ball), rows, any_two), goal, steps), ball)


def _setting(relaxed: Relaxed, rows: Tensor, slopes: Slopes) -> Setting:
    centre = relaxed.view.trace(relaxed.ball.centre)
    return Setting(relaxed.view, slopes, relaxed.boxes, centre, relaxed.ball.eps.double(), rows)


def _obstacle(view: View) -> str | None:
    """Return why there are no multipliers for a network, or None."""
    others = [
        node.name for node in view.nodes if isinstance(node.op, Activation) and not isinstance(node.op, Elementwise)
    ]
    return f"it has no multipliers for '{others[0]}', which is not elementwise" if others else None


class Anchored(LocalMethod):
    """Margins from multipliers with the slopes seen from each sample, and CROWN's.

    Args of the constructor:
        steps: of the optimiser.
    """

    name: ClassVar[str] = "anchored"
    summary: ClassVar[str] = (
        "semidefinite bounds with the slopes seen from the sample (LipSDP's multipliers), and CROWN"
    )
    norms: ClassVar[frozenset[Norm]] = frozenset({"l2"})
    cost: ClassVar[str] = "that of CROWN and a factorisation of all unstable neurons per step"
    rule: ClassVar[str | None] = "local-multipliers/v1"

    def __init__(self, steps: int = STEPS) -> None:
        self.steps = steps
        self._slopes: Slopes = from_centre

    def refuses(self, view: View, norm: Norm) -> str | None:
        """Refuse networks with activations that are not elementwise."""
        return super().refuses(view, norm) or _obstacle(view)

    def _bound(self, view: View, ball: Ball, labels: Tensor) -> Bounds:
        found = search_margins(relax_network(view, ball), labels, self.steps, self._slopes)
        return Bounds(found.lows, lambda some: Proposal(multipliers=found.multipliers(some, view), norms=view.norms))


class LocalLipSDP(Anchored):
    """Margins from true local constants; at level verified from the slopes seen from each sample, which prove more."""

    name: ClassVar[str] = "local-lipsdp"
    summary: ClassVar[str] = "local Lipschitz constants of all pairs of points around the sample (LipSDP), and CROWN"

    def __init__(self, steps: int = STEPS) -> None:
        super().__init__(steps)
        self._slopes = any_two
