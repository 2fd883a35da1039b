r"""Linear bounds that use the boxes of pre-activations as constraints (beta-CROWN's idea, Wang et al. 2021).

On a part of the region every pre-activation z keeps to its box [l, u], so for any numbers g, h >= 0

    a.v >= a.v - g (z - l) - h (u - z) = a.v - (g - h) z + g l - h u.

Such numbers of all neurons, and the slopes of their lines, are moved by gradient steps; every choice gives a valid
bound. Where all neurons are linear on the part, the best choice gives the exact least value: it is Lagrange's dual of a
convex problem. A part without points has bounds that rise without limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lipcert.bounds.local.alpha_crown import Slopes
from lipcert.bounds.local.backward import lower_bounds, send_back
from lipcert.bounds.local.crown import Relaxed
from lipcert.bounds.local.relaxations import Box, Linear, Relaxation

RATE, DECAY = 0.5, 0.95  # of Adam's steps; slopes are of order 1, and so are cuts in units of the coefficients


@dataclass(frozen=True, eq=False)
class Cut(Relaxation):
    """Lines of an elementwise activation and cuts by the box of its input.

    Attributes:
        lines: the relaxation.
        box: (B, *shape) ends, of the input.
        weights: (2, B, S, *shape) g and h, not negative.
    """

    lines: Linear
    box: Box
    weights: Tensor

    def pull(self, a: Tensor) -> tuple[list[Tensor | None], Tensor]:
        """Return one coefficient tensor and the constants."""
        (part,), constant = self.lines.pull(a)
        assert part is not None
        low, high = (end[:, None] for end in self.box)
        below, above = self.weights
        return [part - below + above], constant + (below * low - above * high).flatten(2).sum(dim=2)

    def take(self, samples: Tensor) -> Cut:
        """Return the same of some samples, given by index."""
        low, high = self.box
        return Cut(self.lines.take(samples), (low[samples], high[samples]), self.weights[:, samples])


def first_starts(relaxed: Relaxed) -> dict[int, Tensor]:
    """Return, by activation node, (B, 4, *shape) where `cut_bounds` may start: CROWN's slopes and no cuts."""
    found = {}
    for index, relaxation in relaxed.relaxations.items():
        if isinstance(relaxation, Linear):
            slopes = torch.cat([relaxation.lines.low_slope, relaxation.lines.high_slope], dim=1)
            found[index] = torch.cat([slopes, torch.zeros_like(slopes)], dim=1)
    return found


def cut_bounds(
    relaxed: Relaxed, rows: Tensor, starts: Mapping[int, Tensor], steps: int
) -> tuple[Tensor, dict[int, Tensor]]:
    """Return (B, 1) lower bounds of a function of the output, the best of some steps. Level: numerical.

    Args:
        relaxed: parts of regions; all their activations are elementwise.
        rows: (B, 1, *output_shape).
        starts: slopes and cuts to start from, as returned; any numbers will do.
        steps: of Adam.

    Returns:
        The bounds, and the last slopes and cuts.
    """
    view, last = relaxed.view, len(relaxed.view.nodes) - 1
    best = rows.new_full(rows.shape[:2], -torch.inf)
    units = _units(relaxed, rows)
    with torch.enable_grad():
        slopes = {i: Slopes(r, 1) for i, r in relaxed.relaxations.items() if isinstance(r, Linear)}
        weights = {i: starts[i][:, 2:].transpose(0, 1)[:, :, None].clone().requires_grad_() for i in slopes}
        _start(slopes, starts)
        moving = [leaf for pair in slopes.values() for leaf in pair.leaves] + list(weights.values())
        optimiser = torch.optim.Adam(moving, lr=RATE)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, DECAY)
        for step in range(steps + 1):
            chosen: dict[int, Relaxation] = {**relaxed.relaxations}
            for i, pair in slopes.items():
                box = relaxed.boxes[view.nodes[i].inputs[0]]
                chosen[i] = Cut(pair.relaxation(), box, weights[i] * units[i])
            bounds = lower_bounds(view, relaxed.ball, chosen, last, rows)
            best = torch.fmax(best, bounds.detach())
            if step == steps:
                break
            optimiser.zero_grad()
            torch.autograd.backward(-bounds.sum())
            optimiser.step()
            schedule.step()
            _bring_back(slopes, weights)
    ends = {i: torch.cat([s.low, s.high, weights[i][0], weights[i][1]], dim=1).detach() for i, s in slopes.items()}
    return best, ends


@torch.no_grad()
def _start(slopes: Mapping[int, Slopes], starts: Mapping[int, Tensor]) -> None:
    for index, pair in slopes.items():
        for slope, k in ((pair.low, 0), (pair.high, 1)):
            slope.copy_(starts[index][:, k : k + 1])
        pair.clip()


@torch.no_grad()
def _bring_back(slopes: Mapping[int, Slopes], weights: Mapping[int, Tensor]) -> None:
    for pair in slopes.values():
        pair.clip()
    for pair_of_weights in weights.values():
        pair_of_weights.clamp_(min=0.0)


def _units(relaxed: Relaxed, rows: Tensor) -> dict[int, Tensor]:
    """Return, by activation node, how large the coefficients (B, S, 1...) of functions on its outputs are."""
    found = {}

    def pull(index: int, a: Tensor) -> tuple[list[Tensor | None], Tensor]:
        found[index] = a.flatten(2).abs().mean(dim=2).reshape(*a.shape[:2], *(1,) * (a.ndim - 2))
        return relaxed.relaxations[index].pull(a)

    send_back(relaxed.view, pull, len(relaxed.view.nodes) - 1, rows)
    return found
