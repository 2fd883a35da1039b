"""alpha-CROWN (Xu et al. 2021): the slopes of the relaxations optimised, for every margin on its own.

Any slope gives a valid line (see `lines`), so every step of the optimiser gives valid bounds, and the best of all
steps is kept. Boxes of small nodes (dense layers) are narrowed in the same way, each end on its own; those of large
ones stay CROWN's. Rivals that are beaten already are left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from lipcert.bounds.local import crown
from lipcert.bounds.local.backward import Functions, Pass, entries, lower_bounds
from lipcert.bounds.local.crown import Relaxed, relax_network
from lipcert.bounds.local.lines import Lines
from lipcert.bounds.local.margins import differences
from lipcert.bounds.local.patches import Patches
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.relaxations import Linear, Relaxation
from lipcert.bounds.local.view import View
from lipcert.proof.local import Proposal
from lipcert.proof.local import Slopes as ProposedSlopes

_RATE, _DECAY = 0.4, 0.9  # of Adam's steps; slopes are of order 1
_SMALL = 512  # entries of the nodes whose boxes are worth the price of own slopes for each bound
_COPIES = 30  # tensors of the size of the coefficients that live at once


class Slopes:
    """Slopes of one elementwise node, one set for each function; leaves of the gradient where they have a choice.

    Args of the constructor:
        relaxation: where they start.
        count: number of functions.

    Attributes:
        low, high: (B, S, *shape) slopes of the lines below and above.
    """

    def __init__(self, relaxation: Linear, count: int) -> None:
        line, lines = relaxation.polyline, relaxation.lines
        self._line = line.of_functions()
        self._ranges = self._line.slope_range(self._line.below), self._line.slope_range(self._line.above)
        self.low, self.high = (
            slope.expand(-1, count, *slope.shape[2:]).clone() for slope in (lines.low_slope, lines.high_slope)
        )
        self.low.requires_grad_(_has_choice(line.x, line.below))
        self.high.requires_grad_(_has_choice(-line.x, -line.above))

    @property
    def leaves(self) -> list[Tensor]:
        """The slopes that may move."""
        return [slope for slope in (self.low, self.high) if slope.requires_grad]

    def relaxation(self) -> Linear:
        """Return the relaxation with these slopes and the best intercepts for them."""
        line = self._line
        parts = (self.low, line.highest_below(self.low), self.high, line.lowest_above(self.high))
        return Linear(Lines(*parts), line)

    @torch.no_grad()
    def clip(self) -> None:
        """Bring slopes back between those of the polyline's pieces."""
        for slope, (least, most) in zip((self.low, self.high), self._ranges, strict=True):
            slope.copy_(torch.minimum(torch.maximum(slope, least), most))


def optimised_bounds(
    steps: int, view: View, ball: Ball, relaxations: Mapping[int, Relaxation], start: int, coefficients: Functions
) -> Tensor:
    """Return (B, S) lower bounds of linear functions of a node, the best of some steps of Adam. Level: numerical.

    Args:
        steps: how often slopes are moved; 0 is CROWN.
        view, ball, relaxations, start, coefficients: as in `backward.lower_bounds`.
    """
    return _optimise(steps, view, ball, relaxations, start, coefficients)[0]


def _optimise(
    steps: int, view: View, ball: Ball, relaxations: Mapping[int, Relaxation], start: int, coefficients: Functions
) -> tuple[Tensor, dict[int, Slopes]]:
    """Return the bounds of `optimised_bounds`, and the last slopes by node; no slopes where there is no choice."""
    if isinstance(coefficients, Patches):
        coefficients = coefficients.full()
    best = coefficients.new_full(coefficients.shape[:2], -torch.inf)
    with torch.enable_grad():
        slopes = {
            index: Slopes(relaxation, coefficients.shape[1])
            for index, relaxation in relaxations.items()
            if isinstance(relaxation, Linear) and index <= start
        }
        leaves = [leaf for pair in slopes.values() for leaf in pair.leaves]
        if not leaves:
            return lower_bounds(view, ball, relaxations, start, coefficients), {}
        optimiser = torch.optim.Adam(leaves, lr=_RATE)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, _DECAY)
        for step in range(steps + 1):
            chosen: dict[int, Relaxation] = {**relaxations}
            chosen |= {index: pair.relaxation() for index, pair in slopes.items()}
            bounds = lower_bounds(view, ball, chosen, start, coefficients)
            best = torch.fmax(best, bounds.detach())
            if step == steps or not bounds.requires_grad:
                break
            optimiser.zero_grad()
            torch.autograd.backward(-bounds.sum())
            optimiser.step()
            schedule.step()
            for pair in slopes.values():
                pair.clip()
    return best, slopes


def tightened(view: View, ball: Ball, steps: int) -> Relaxed:
    """Return the relaxed network, the boxes of small nodes narrowed with optimised slopes too. Level: numerical."""
    way = Pass(partial(optimised_bounds, steps), _COPIES)
    return relax_network(view, ball, {i: way for i in view.nonlinear_inputs if view.nodes[i].size <= _SMALL})


def margins(relaxed: Relaxed, labels: Tensor, steps: int) -> Tensor:
    """Return (B, classes - 1) lower bounds of all margins; those that CROWN proves positive are left as they are."""
    view, found = relaxed.view, crown.margins(relaxed, labels)
    open_ = (~(found > 0)).sum(dim=1)
    samples, count = torch.nonzero(open_)[:, 0], int(open_.amax())
    if not count:
        return found
    worst = found[samples].argsort(dim=1)[:, :count]
    a = differences(view, labels[samples])
    a = a.flatten(2).gather(1, worst[..., None].expand(-1, -1, view.classes)).reshape(*worst.shape, *a.shape[2:])
    some = relaxed.take(samples)
    better = optimised_bounds(steps, view, some.ball, some.relaxations, len(view.nodes) - 1, a)
    found = found.clone()
    found[samples] = found[samples].scatter_reduce(1, worst, better, "amax")
    return found


def propose(relaxed: Relaxed, labels: Tensor, steps: int) -> Proposal:
    """Return the slopes that the optimiser ends with, for all margins and for the entries of small nodes.

    Entries are those that CROWN leaves undecided: what better slopes have decided since has to be derived again. Their
    slopes, one set for each of hundreds of functions, are too many to be kept for samples that may not need them.

    Args:
        relaxed: as from `tightened`.
        labels: of its samples.
        steps: of the optimiser.
    """
    view, ball, plain = relaxed.view, relaxed.ball, relax_network(relaxed.view, relaxed.ball)
    entries_ = {}
    for index in view.nonlinear_inputs:
        mask = crown.undecided(view, index, plain.boxes[index])
        count = int(mask.sum(dim=1).amax())
        if view.nodes[index].size > _SMALL or not count:
            continue
        rows = mask.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :count]
        at, a, _ = entries(view, index, rows)
        found = _optimise(steps, view, ball, relaxed.relaxations, at, torch.cat([a, -a], dim=1))[1]
        if found:
            entries_[index] = rows.cpu().numpy(), _numbers(found)
    ends = _optimise(steps, view, ball, relaxed.relaxations, len(view.nodes) - 1, differences(view, labels))[1]
    return Proposal(_numbers(ends), entries_)


def _numbers(slopes: Mapping[int, Slopes]) -> ProposedSlopes:
    """Return slopes as float64 arrays."""
    return {
        index: (pair.low.detach().cpu().double().numpy(), pair.high.detach().cpu().double().numpy())
        for index, pair in slopes.items()
    }


def _has_choice(x: Tensor, p: Tensor) -> bool:
    """Whether some point lies below the chord from end to end: if none does, the chord is the best line."""
    run = torch.where(x[-1] != x[0], x[-1] - x[0], 1.0)
    chord = p[0] + (p[-1] - p[0]) / run * (x - x[0])
    return bool((p < chord - 1e-6 * (1.0 + chord.abs())).any())
