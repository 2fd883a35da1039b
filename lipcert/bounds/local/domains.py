"""Parts of regions on which some neurons keep to a side of a kink: how they are made, and what holds on them.

A part is told by the boxes of its pre-activations alone. CROWN narrows the other boxes, and `cuts` use that points of
the part keep to all of them. Slopes and cuts start from those of the part that was halved.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lipcert.bounds.local import crown
from lipcert.bounds.local.backward import send_back
from lipcert.bounds.local.crown import Relaxed, relax_network
from lipcert.bounds.local.cuts import cut_bounds, first_starts
from lipcert.bounds.local.lines import Shape
from lipcert.bounds.local.margins import differences
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.relaxations import Box
from lipcert.bounds.local.sectors import Sector, local_sector
from lipcert.bounds.local.view import View
from lipcert.network.operators import Elementwise


@dataclass(frozen=True, eq=False)
class Domains:
    """D parts of the regions of some samples.

    Attributes:
        samples: (D,) int64, of which sample each is a part.
        boxes: of the nodes that activations read, (D, *shape) ends.
        bounds: (D, S) lower bounds of the margins on each.
        starts: of each activation node, (D, 4, *shape) slopes and cuts to start from (see `cuts`).
    """

    samples: Tensor
    boxes: dict[int, Box]
    bounds: Tensor
    starts: dict[int, Tensor]

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def worst(self) -> Tensor:
        """(D,) the least bound of each; minus infinity where one is no number."""
        return self.bounds.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).amin(dim=1)

    def take(self, rows: Tensor) -> Domains:
        """Return some of them, given by index or mask."""
        boxes = {index: (low[rows], high[rows]) for index, (low, high) in self.boxes.items()}
        starts = {index: start[rows] for index, start in self.starts.items()}
        return Domains(self.samples[rows], boxes, self.bounds[rows], starts)

    def join(self, others: Domains) -> Domains:
        """Return these and others."""
        boxes = {
            index: (torch.cat([low, others.boxes[index][0]]), torch.cat([high, others.boxes[index][1]]))
            for index, (low, high) in self.boxes.items()
        }
        starts = {index: torch.cat([start, others.starts[index]]) for index, start in self.starts.items()}
        samples = torch.cat([self.samples, others.samples])
        return Domains(samples, boxes, torch.cat([self.bounds, others.bounds]), starts)


def whole(view: View, relaxed: Relaxed, bounds: Tensor) -> Domains:
    """Return the whole regions as parts, with bounds (B, S) that are known."""
    samples = torch.arange(len(bounds), device=bounds.device)
    boxes = {index: relaxed.boxes[index] for index in view.nonlinear_inputs}
    return Domains(samples, boxes, bounds, first_starts(relaxed))


def bounded(view: View, ball: Ball, labels: Tensor, domains: Domains, steps: int) -> Domains:
    """Return the same parts with narrower boxes and better bounds.

    Args:
        view: the network; its activations are elementwise.
        ball, labels: of all samples.
        domains: their boxes and bounds hold.
        steps: of the optimisers, where CROWN leaves a part open.
    """
    here, mine = ball.take(domains.samples), labels[domains.samples]
    relaxed = relax_network(view, here, known=domains.boxes)
    boxes = {index: relaxed.boxes[index] for index in domains.boxes}
    bounds = torch.fmax(domains.bounds, crown.margins(relaxed, mine))
    found = Domains(domains.samples, boxes, bounds, domains.starts)
    open_ = (~(bounds > 0).all(dim=1)).nonzero()[:, 0]
    if not len(open_):
        return found
    worst, rows = _worst_rows(view, mine[open_], bounds[open_])
    some = {index: start[open_] for index, start in domains.starts.items()}
    better, some = cut_bounds(relaxed.take(open_), rows, some, steps)
    best = torch.fmax(bounds[open_].gather(1, worst), better)
    starts = {index: start.index_copy(0, open_, some[index]) for index, start in domains.starts.items()}
    return Domains(domains.samples, boxes, bounds.index_copy(0, open_, bounds[open_].scatter(1, worst, best)), starts)


def _worst_rows(view: View, labels: Tensor, bounds: Tensor) -> tuple[Tensor, Tensor]:
    """Return (D, 1) the rival with the worst bound, and (D, 1, *output_shape) its margin."""
    worst = bounds.nan_to_num(nan=-torch.inf).argmin(dim=1)
    return worst[:, None], differences(view, labels)[torch.arange(len(worst), device=worst.device), worst][:, None]


def split(view: View, ball: Ball, labels: Tensor, domains: Domains) -> tuple[Domains, Tensor]:
    """Return the halves of parts, and which parts (D,) cannot be split as all their neurons are linear.

    The neuron is the one with the largest |coefficient| * half width of its slopes * half width of its box, for the
    worst margin followed backwards with middle slopes; it is cut at a kink, or in the middle of its box.
    """
    scores = _scores(view, labels[domains.samples], domains)
    best = torch.stack([score.amax(dim=1) for score in scores.values()], dim=1)
    stuck = ~((best.amax(dim=1) > 0) & torch.isfinite(best).all(dim=1))
    which = best.argmax(dim=1)
    lower, upper = dict(domains.boxes), dict(domains.boxes)
    for k, (index, score) in enumerate(scores.items()):
        rows = ((which == k) & ~stuck).nonzero()[:, 0]
        if not len(rows):
            continue
        source, entry = view.nodes[index].inputs[0], score.argmax(dim=1)[rows]
        at = _cut(view.activation(index), domains.boxes[source]).flatten(1)[rows, entry]
        low, high = (end.flatten(1) for end in domains.boxes[source])
        shape = domains.boxes[source][0].shape
        new_high, new_low = (end.index_put((rows, entry), at).reshape(shape) for end in (high, low))
        lower[source], upper[source] = (lower[source][0], new_high), (new_low, upper[source][1])
    first, second = (replace(domains, boxes=boxes).take(~stuck) for boxes in (lower, upper))
    return first.join(second), stuck


def _scores(view: View, labels: Tensor, domains: Domains) -> dict[int, Tensor]:
    """Return (D, size) scores of the neurons of each activation node."""
    _, rows = _worst_rows(view, labels, domains.bounds)
    sectors, scores = dict[int, Sector](), dict[int, Tensor]()
    for index, node in enumerate(view.nodes):
        if isinstance(node.op, Elementwise):
            sectors[index] = local_sector(view.activation(index), domains.boxes[node.inputs[0]])

    def pull(index: int, a: Tensor) -> tuple[list[Tensor | None], Tensor]:
        low, high = domains.boxes[view.nodes[index].inputs[0]]
        scores[index] = (a[:, 0].abs() * sectors[index].radius * (high - low)).flatten(1)
        return [a * sectors[index].middle[:, None]], a.new_zeros(a.shape[:2])

    send_back(view, pull, len(view.nodes) - 1, rows)
    return scores


def _cut(shape: Shape, box: Box) -> Tensor:
    """Return where boxes are cut: at a kink inside, or else in the middle."""
    low, high = box
    at = (low + high) / 2
    for kink in shape.curve.kinks(*shape.parameters):
        point = kink.to(low)
        at = torch.where((low < point) & (point < high), point, at)
    return at
