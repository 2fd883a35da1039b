r"""Parts of regions on which some neurons keep to a side of a kink: how they are made, and what holds on them.

A part is told by the boxes of its pre-activations alone. A neuron whose box lies in one straight piece of its
activation is linear there, so on the part the network equals an *extended* one, in which that neuron follows the line
everywhere. Multipliers (`covariance`) bound the extended network around x, x inside the part or not: unstable neurons
have the secants from where the extended network is at x.

CROWN's bounds are improved by `cuts`, which use that points of the part keep to the boxes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lipcert.bounds.local import crown
from lipcert.bounds.local.backward import send_back
from lipcert.bounds.local.covariance import first_logs
from lipcert.bounds.local.crown import Relaxed, relax_network
from lipcert.bounds.local.cuts import cut_bounds
from lipcert.bounds.local.improvement import Positive, improve
from lipcert.bounds.local.lines import Shape
from lipcert.bounds.local.margins import differences
from lipcert.bounds.local.noise import noise_model
from lipcert.bounds.local.pruning import opened
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.relaxations import Box
from lipcert.bounds.local.sectors import Sector, anchored_sector, local_sector
from lipcert.bounds.local.view import View
from lipcert.network.operators import Elementwise


@dataclass(frozen=True, eq=False)
class Domains:
    """D parts of the regions of some samples.

    Attributes:
        samples: (D,) int64, of which sample each is a part.
        boxes: of the nodes that activations read, (D, *shape) ends.
        bounds: (D, S) lower bounds of the margins on each.
    """

    samples: Tensor
    boxes: dict[int, Box]
    bounds: Tensor

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def worst(self) -> Tensor:
        """(D,) the least bound of each; minus infinity where one is no number."""
        return self.bounds.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).amin(dim=1)

    def take(self, rows: Tensor) -> Domains:
        """Return some of them, given by index or mask."""
        boxes = {index: (low[rows], high[rows]) for index, (low, high) in self.boxes.items()}
        return Domains(self.samples[rows], boxes, self.bounds[rows])

    def join(self, others: Domains) -> Domains:
        """Return these and others."""
        boxes = {
            index: (torch.cat([low, others.boxes[index][0]]), torch.cat([high, others.boxes[index][1]]))
            for index, (low, high) in self.boxes.items()
        }
        samples = torch.cat([self.samples, others.samples])
        return Domains(samples, boxes, torch.cat([self.bounds, others.bounds]))


def whole(view: View, relaxed: Relaxed, bounds: Tensor) -> Domains:
    """Return the whole regions as parts, with bounds (B, S) that are known."""
    samples = torch.arange(len(bounds), device=bounds.device)
    return Domains(samples, {index: relaxed.boxes[index] for index in view.nonlinear_inputs}, bounds)


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
    for way in (_by_multipliers, _by_cuts):
        open_ = (~(bounds > 0).all(dim=1)).nonzero()[:, 0]
        if len(open_):
            better = way(relaxed.take(open_), mine[open_], bounds[open_], steps)
            bounds = bounds.index_copy(0, open_, torch.fmax(bounds[open_], better))
    return Domains(domains.samples, boxes, bounds)


def _by_cuts(relaxed: Relaxed, labels: Tensor, known: Tensor, steps: int) -> Tensor:
    """Return bounds of the margin that is worst so far, by cuts; the others as they are."""
    worst = known.nan_to_num(nan=-torch.inf).argmin(dim=1)
    rows = differences(relaxed.view, labels)
    rows = rows[torch.arange(len(rows), device=rows.device), worst][:, None]
    found = cut_bounds(relaxed, rows, steps)
    return known.scatter(1, worst[:, None], found)


def _by_multipliers(relaxed: Relaxed, labels: Tensor, known: Tensor, steps: int) -> Tensor:
    """Return bounds of all margins by multipliers; those known already are left out of the improvement."""
    view, ball, rows = relaxed.view, relaxed.ball, differences(relaxed.view, labels)
    if ball.norm != "l2":
        return known
    sectors, end = extended(view, ball, relaxed.boxes)
    at_centre = (rows.flatten(2) @ end.flatten(1)[..., None])[..., 0].double()
    eps = ball.eps.double()
    model = noise_model(view, sectors, len(view.nodes) - 1, rows)
    goal = Positive(at_centre.masked_fill(known > 0, torch.inf), eps)
    found = improve(model, first_logs(model), goal, steps)[0].lengths
    return (at_centre - eps[:, None] * found).to(known.dtype)


def extended(view: View, ball: Ball, boxes: list[Box]) -> tuple[dict[int, Sector], Tensor]:
    """Return the sectors of the extended network, seen from the samples, and its outputs there."""
    values, sectors = [ball.centre], dict[int, Sector]()
    for index, node in enumerate(view.nodes[1:], start=1):
        inputs = [values[i] for i in node.inputs]
        values.append(view.kernels[index](*inputs))
        if isinstance(node.op, Elementwise):
            sectors[index], values[index] = _extend(view.activation(index), boxes[node.inputs[0]], inputs[0])
    return sectors, values[-1]


def _extend(shape: Shape, box: Box, z: Tensor) -> tuple[Sector, Tensor]:
    """Return slopes from z to the points of a box, and the value at z, of lines where the box is in a straight piece."""
    local, seen = local_sector(shape, opened(box)), anchored_sector(shape, opened(box), z)
    low, value = box[0], shape.function(z, *shape.parameters)
    straight = local.alpha == local.beta
    line = shape.function(low, *shape.parameters) + local.alpha * (z - low)
    sector = Sector(*(torch.where(straight, a, b) for a, b in ((local.alpha, seen.alpha), (local.beta, seen.beta))))
    return sector, torch.where(straight & ((z < low) | (z > box[1])), line, value)


def split(view: View, ball: Ball, labels: Tensor, domains: Domains) -> tuple[Domains, Tensor]:
    """Return the halves of parts, and which parts (D,) cannot be split as all their neurons are linear.

    The neuron is the one with the largest |coefficient| * half width of its slopes * half width of its box, for the
    worst margin followed backwards with middle slopes; it is cut at a kink, or in the middle of its box.
    """
    scores = _scores(view, labels[domains.samples], domains)
    best = torch.stack([score.amax(dim=1) for score in scores.values()], dim=1)
    stuck = ~(best.amax(dim=1) > 0)
    which = best.argmax(dim=1)
    lower, upper = dict(domains.boxes), dict(domains.boxes)
    for k, (index, score) in enumerate(scores.items()):
        rows = ((which == k) & ~stuck).nonzero()[:, 0]
        if not len(rows):
            continue
        source, entry = view.nodes[index].inputs[0], score.argmax(dim=1)[rows]
        low, high = (end.flatten(1) for end in domains.boxes[source])
        at = _cut(view.activation(index), low, high)[rows, entry]
        shape = domains.boxes[source][0].shape
        new_high, new_low = (end.index_put((rows, entry), at).reshape(shape) for end in (high, low))
        lower[source], upper[source] = (lower[source][0], new_high), (new_low, upper[source][1])
    kept = ~stuck
    halves = (Domains(domains.samples, boxes, domains.bounds).take(kept) for boxes in (lower, upper))
    first, second = halves
    return first.join(second), stuck


def _scores(view: View, labels: Tensor, domains: Domains) -> dict[int, Tensor]:
    """Return (D, size) scores of the neurons of each activation node."""
    rows = differences(view, labels)
    worst = domains.bounds.nan_to_num(nan=-torch.inf).argmin(dim=1)
    rows = rows[torch.arange(len(rows), device=rows.device), worst][:, None]
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


def _cut(shape: Shape, low: Tensor, high: Tensor) -> Tensor:
    """Return where boxes (D, size) are cut."""
    at = (low + high) / 2
    for kink in shape.curve.kinks(*shape.parameters):
        point = kink.to(low).expand(low.shape) if kink.ndim == 0 else kink.to(low).flatten().expand(low.shape)
        at = torch.where((low < point) & (point < high), point, at)
    return at
