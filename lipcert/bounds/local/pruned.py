r"""Local l2 bounds with constant neurons dropped, and linear ones merged (after Huang et al. 2021).

Norms are those of `reaches`, without the rows and columns of neurons that are constant on the region. A function c of
the output is followed backwards with a fixed slope m_i for each neuron:

    c.df = g.dx + sum_k a_k.w_k,      w = dv - m dz,  |w_i| <= r_i |dz_i|,  r = max |slope - m|.

With m = 0 that is Huang's bound, all of the last hidden layer in the sum and nothing behind it. With m the middle of
the slopes, neurons that are linear on the region have r = 0: they vanish from the sum, merged into g exactly. The
layers of unstable neurons that remain are bounded by |a_k.w_k| <= ||a_k r^(1/2)|| times the measure of r. Both hold,
and the better one is taken. Where only x and another input are compared, w_k lies in the ball of that radius and in a
box at once, which is better than the ball alone; and slopes are those seen from x.

Source: Huang et al. 2021 (m = 0); loop transformation with middle slopes: Fazlyab et al. 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lipcert.bounds.local.backward import rows_at_a_time, send_back
from lipcert.bounds.local.crown import relax_network
from lipcert.bounds.local.margins import differences, margins_on_boxes, outputs, proved
from lipcert.bounds.local.masked_norms import matrix_norms, root
from lipcert.bounds.local.method import Bounds, LocalMethod
from lipcert.bounds.local.pruning import Pruned, any_two, from_centre, prune
from lipcert.bounds.local.region import Ball, split_minimum
from lipcert.bounds.local.relaxations import Box
from lipcert.bounds.local.view import View
from lipcert.proof.claims import Norm
from lipcert.proof.local import Proposal

_COPIES = 8  # tensors of the size of the coefficients that live at once


@dataclass(frozen=True)
class Followed:
    """Functions of the output, followed backwards with fixed slopes.

    Attributes:
        gradient: (B, S, *input_shape) g.
        parts: by node, the coefficients a (B, S, *shape) of what remains of it.
        slopes: by elementwise node, m (B, *shape).
    """

    gradient: Tensor
    parts: dict[int, Tensor]
    slopes: dict[int, Tensor]


def follow(pruned: Pruned, rows: Tensor, slopes: dict[int, Tensor]) -> Followed:
    """Return functions (B, S, *output_shape) followed back; an activation without a slope m is not passed."""
    parts: dict[int, Tensor] = {}

    def pull(index: int, a: Tensor) -> tuple[list[Tensor | None], Tensor]:
        parts[index] = a
        inputs = pruned.view.nodes[index].inputs
        before: list[Tensor | None] = [a * slopes[index][:, None]] if index in slopes else [None] * len(inputs)
        return before, a.new_zeros(a.shape[:2])

    gradient, _ = send_back(pruned.view, pull, len(pruned.view.nodes) - 1, rows)
    return Followed(gradient, parts, slopes)


def rest(pruned: Pruned, index: int, slope: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return (B, n) weights and (B,) their measure, of what remains of a node followed with a slope or with none."""
    if slope is None:
        moves = pruned.reaches.moves(index)
        return moves.spread.flatten(1), moves.length
    sector = pruned.sectors[index]
    radius = torch.maximum((sector.alpha - slope).abs(), (sector.beta - slope).abs())
    return radius.flatten(1), pruned.reaches.measure(pruned.view.nodes[index].inputs[0], radius)


def remainder_box(pruned: Pruned, index: int, slope: Tensor | None) -> Box:
    """Return (B, n) boxes of what remains, around 0: that of dv - m dz, v and z in their boxes."""
    (low, high), at = pruned.boxes[index], pruned.centre[index]
    low, high = (low - at).flatten(1), (high - at).flatten(1)
    if slope is not None:
        source = pruned.view.nodes[index].inputs[0]
        ends = [(slope * (end - pruned.centre[source])).flatten(1) for end in pruned.boxes[source]]
        low, high = low - torch.maximum(*ends), high - torch.minimum(*ends)
    return low.clamp(max=0.0), high.clamp(min=0.0)


def least_values(pruned: Pruned, followed: Followed, rows: Tensor) -> Tensor:
    """Return (B, S) lower bounds, on the regions, of functions of the output; slopes are `from_centre`.

    rows: (B, S, *output_shape), what was followed.
    """
    ball = pruned.ball
    at_centre = (rows.flatten(2) @ pruned.centre[-1].flatten(1)[..., None])[..., 0]
    start = (followed.gradient.flatten(2) @ ball.centre.flatten(1)[..., None])[..., 0]
    total = at_centre + (ball.minimum(followed.gradient) - start)
    for index, a in followed.parts.items():
        slope = followed.slopes.get(index)
        weights, length = rest(pruned, index, slope)
        scale = root(weights)
        share = torch.where(scale > 0, 1.0 / torch.where(scale > 0, scale, 1.0), 0.0)
        low, high = ((end * share)[:, None] for end in remainder_box(pruned, index, slope))
        total = total + split_minimum(a.flatten(2) * scale[:, None], low, high, (ball.eps * length)[:, None])
    return total


def constants(pruned: Pruned, followed: Followed, size: Callable[[Tensor], Tensor]) -> Tensor:
    """Return l2 Lipschitz constants of functions of the output on the regions; slopes are for `any_two`.

    size: norm of coefficients (B, S, n): of each function (B, S), or of all as one map (B, 1).
    """
    total = size(followed.gradient.flatten(2))
    for index, a in followed.parts.items():
        weights, length = rest(pruned, index, followed.slopes.get(index))
        total = total + size(a.flatten(2) * root(weights)[:, None]) * length[:, None]
    return total


def ways(pruned: Pruned) -> list[dict[int, Tensor]]:
    """Return the slopes with which functions are followed: none at all (m = 0), and those in the middle."""
    return [{}, {index: sector.middle for index, sector in pruned.sectors.items()}]


def row_constants(view: View, ball: Ball, rows: Tensor, known: Sequence[Box] = ()) -> Tensor:
    """Return local l2 Lipschitz constants of linear functions of the output. Level: numerical.

    Args:
        view: the network.
        ball: B l2 balls; the input box, where there is one, narrows them.
        rows: (B, S, *output_shape) coefficients, as from `margins.differences`.
        known: boxes of all nodes that hold too.

    Returns:
        (B, S): |row.f(x) - row.f(x')| <= it times ||x - x'||_2 for any two points of the region; infinite where
        nothing is proved, for samples that are not valid too.

    Raises:
        UsageError: the balls are not l2 balls.
    """
    found = _constants(prune(view, ball, any_two, known), rows, lambda a: torch.linalg.vector_norm(a, dim=2))
    return proved(found, ball)


def local_constant(view: View, ball: Ball, known: Sequence[Box] = ()) -> Tensor:
    """Return (B,) local l2 Lipschitz constants of the whole network; all else as in `row_constants`."""
    pruned = prune(view, ball, any_two, known)
    rows = outputs(view, len(ball))
    found = _constants(pruned, rows, lambda a: matrix_norms(a)[:, None])[:, 0]
    last = len(view.nodes) - 1
    everywhere = torch.tensor(view.lipschitz("l2")[last], dtype=torch.float64, device=view.device).to(found)
    found = torch.minimum(found, pruned.reaches.measure(last, torch.ones_like(pruned.centre[-1])))
    return proved(torch.minimum(found, everywhere)[:, None], ball)[:, 0]


def _constants(pruned: Pruned, rows: Tensor, size: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.stack([constants(pruned, follow(pruned, rows, way), size) for way in ways(pruned)]).amin(dim=0)


class PrunedIntervals(LocalMethod):
    """Local constants with interval boxes."""

    name: ClassVar[str] = "pruned"
    summary: ClassVar[str] = "products of norms without the neurons that are constant around the sample (Huang et al.)"
    norms: ClassVar[frozenset[Norm]] = frozenset({"l2"})
    cost: ClassVar[str] = "a small eigenvalue problem per layer and sample"
    rule: ClassVar[str | None] = "local-norms/v1"

    def _bound(self, view: View, ball: Ball, labels: Tensor) -> Bounds:
        pruned = prune(view, ball, from_centre, self._known(view, ball))
        found = margins_on_boxes(view, pruned.boxes, labels)
        rows = differences(view, labels)
        step = rows_at_a_time(view, len(view.nodes) - 1, len(rows) * _COPIES)
        for way in ways(pruned):
            parts = [least_values(pruned, follow(pruned, part, way), part) for part in torch.split(rows, step, dim=1)]
            found = torch.maximum(found, torch.cat(parts, dim=1))
        return Bounds(found, lambda samples: Proposal(norms=view.norms))

    def _known(self, view: View, ball: Ball) -> Sequence[Box]:
        """Return boxes from elsewhere, or none."""
        return ()


class PrunedCrown(PrunedIntervals):
    """Local constants with CROWN's boxes."""

    name: ClassVar[str] = "pruned-crown"
    summary: ClassVar[str] = "'pruned' with the boxes of CROWN, which leave fewer neurons"
    cost: ClassVar[str] = "that of CROWN and of 'pruned'"

    def _known(self, view: View, ball: Ball) -> Sequence[Box]:
        return relax_network(view, ball).boxes
