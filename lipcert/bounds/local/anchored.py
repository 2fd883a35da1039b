r"""`anchored` and `local-lipsdp`: margins and constants on l2 balls from the multiplier rule.

A certificate at x compares x' only with x, so the sector of a neuron is that of its secants from z(x) (`sectors`),
much narrower than all slopes on the box. x is certified where margin_j > eps L_j for all rivals j, L_j from one set of
multipliers (`covariance`, `rounds`).

With all slopes on the box instead, L is a Lipschitz constant on the region: it compares any two points of it.

Sources: sector bounds around an equilibrium (Yin, Seiler & Arcak 2021), here around a sample; LipSDP (Fazlyab et al.
2019) with slopes of a region (Hashemi et al. 2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from lipcert.bounds.local import crown
from lipcert.bounds.local.covariance import all_rows, each_row
from lipcert.bounds.local.crown import Relaxed, relax_network
from lipcert.bounds.local.improvement import Goal, Positive, Small, Together
from lipcert.bounds.local.margins import differences, outputs, proved
from lipcert.bounds.local.method import LocalMethod
from lipcert.bounds.local.pruning import Slopes, any_two, from_centre
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.rounds import Setting, constants, search
from lipcert.bounds.local.view import View
from lipcert.errors import UsageError
from lipcert.network.enclosure import Float
from lipcert.network.operators import Activation, Elementwise
from lipcert.proof.claims import Norm
from lipcert.proof.local import Proposal

ALONE = 3  # rivals of a sample, at most, that get multipliers of their own
STEPS = 40  # of the optimiser; on real networks hardly a margin turns positive later


def margins(relaxed: Relaxed, labels: Tensor, steps: int, slopes: Slopes = from_centre) -> Tensor:
    """Return (B, classes - 1) lower bounds of all margins: the better of CROWN's and those by multipliers.

    Level: numerical.

    Args:
        relaxed: the network relaxed on l2 balls; its activations are elementwise.
        labels: (B,) int64.
        steps: of the optimiser, on samples that the first multipliers leave open; those that CROWN proves are left.
        slopes: `from_centre` or, looser, `any_two`.
    """
    found = crown.margins(relaxed, labels)
    open_ = (~(found.amin(dim=1) > 0)).nonzero()[:, 0]
    if not len(open_):
        return found
    part, rows = relaxed.take(open_), differences(relaxed.view, labels[open_])
    setting = _setting(part, rows, slopes)
    at_centre = setting.at_centre
    goal = Positive(at_centre, setting.eps)
    better = at_centre - setting.eps[:, None] * constants(setting, goal, steps)
    found[open_] = torch.fmax(found[open_], better.to(found.dtype))
    return found


def propose(relaxed: Relaxed, labels: Tensor, steps: int) -> Proposal:
    """Return multipliers for `Evaluator.anchored`: for all rivals together, then for the worst of those left open.

    Arguments as of `margins`; slopes are `from_centre`.
    """
    rows = differences(relaxed.view, labels)
    setting = _setting(relaxed, rows, from_centre)
    at_centre = setting.at_centre
    goal = Together(at_centre, setting.eps)
    found = search(setting, goal, steps)
    sets = [_spread(relaxed.view, logs, torch.arange(len(labels)), len(labels)) for logs in found.logs]
    lows = torch.where(goal.reached(found.lengths), torch.inf, at_centre - setting.eps[:, None] * found.lengths)
    for worst in lows.argsort(dim=1).T[:ALONE]:
        left = (lows.gather(1, worst[:, None])[:, 0] < torch.inf).nonzero()[:, 0]
        if len(left):
            others = torch.ones_like(at_centre, dtype=torch.bool).scatter(1, worst[:, None], False)
            alone = Together(at_centre.masked_fill(others, torch.inf)[left], setting.eps[left])
            again = search(setting.take(left), alone, 2 * steps)
            sets += [_spread(relaxed.view, logs, left, len(labels)) for logs in again.logs[1:]]
    return Proposal(multipliers=sets, norms=relaxed.view.norms)


def _spread(view: View, logs: Mapping[int, Tensor], samples: Tensor, count: int) -> dict[int, Float]:
    """Return multipliers of some samples as arrays (count, *shape) of all, zero for the others."""
    found = {}
    for node, log in logs.items():
        full = log.new_zeros((count, log.shape[1]))
        full[samples] = log.exp().nan_to_num(0.0, 0.0, 0.0)
        found[node] = full.reshape(count, *view.nodes[node].shape).cpu().numpy()
    return found


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

    @torch.no_grad()
    def propose(self, view: View, ball: Ball, labels: Tensor) -> Proposal:
        """Return one set of multipliers for each sample."""
        return propose(relax_network(view, ball), labels, self.steps)

    def _margins(self, view: View, ball: Ball, labels: Tensor) -> Tensor:
        return margins(relax_network(view, ball), labels, self.steps, self._slopes)


class LocalLipSDP(Anchored):
    """Margins from true local constants; at level verified from the slopes seen from each sample, which prove more."""

    name: ClassVar[str] = "local-lipsdp"
    summary: ClassVar[str] = "local Lipschitz constants of all pairs of points around the sample (LipSDP), and CROWN"

    def __init__(self, steps: int = STEPS) -> None:
        super().__init__(steps)
        self._slopes = any_two
