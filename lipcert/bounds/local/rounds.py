r"""Multipliers and boxes improved by turns, on samples in groups.

What multipliers prove of the neurons, |dz_i| <= eps sqrt(C_ii), narrows the boxes; narrower boxes give narrower
sectors, and multipliers stay inside the domain as these shrink. Samples whose goal is reached drop out.

Samples with about as many unstable neurons go together, as matrices are padded to the largest number of a group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lipcert.bounds.local.covariance import Logs, carry, first
from lipcert.bounds.local.improvement import Goal, improve
from lipcert.bounds.local.noise import NoiseModel, noise_model
from lipcert.bounds.local.pruning import Slopes, sectors_of
from lipcert.bounds.local.relaxations import Box
from lipcert.bounds.local.sectors import Sector
from lipcert.bounds.local.view import View

GROUP_BYTES = 2**27  # of the matrices of one group
_COPIES = 6  # matrices of all rows that live at once
EACH = 4  # steps of a round; then boxes are narrowed


@dataclass(frozen=True, eq=False)
class Setting:
    """Linear functions of the outputs of B samples on their regions.

    Attributes:
        view: the network; its activations are elementwise.
        slopes: which slopes the activations have on their boxes.
        boxes: of all nodes. centre: values of all nodes at the samples.
        eps: (B,) radii of l2 balls that hold the regions.
        rows: (B, S, *output_shape) the functions.
    """

    view: View
    slopes: Slopes
    boxes: Sequence[Box]
    centre: Sequence[Tensor]
    eps: Tensor
    rows: Tensor

    def take(self, samples: Tensor) -> Setting:
        """Return the same of some samples, given by index."""
        boxes = [(low[samples], high[samples]) for low, high in self.boxes]
        centre = [value[samples] for value in self.centre]
        return replace(self, boxes=boxes, centre=centre, eps=self.eps[samples], rows=self.rows[samples])

    @property
    def sectors(self) -> dict[int, Sector]:
        """Sectors of all activation nodes."""
        return sectors_of(self.view, self.slopes, self.boxes, self.centre)

    @property
    def at_centre(self) -> Tensor:
        """(B, S) values of the functions at the samples, float64."""
        return (self.rows.flatten(2) @ self.centre[-1].flatten(1)[..., None])[..., 0].double()

    def model(self) -> NoiseModel:
        """Return the noise model of the functions."""
        return noise_model(self.view, self.sectors, len(self.view.nodes) - 1, self.rows)

    def narrowed(self, model: NoiseModel, widths: Sequence[Tensor]) -> Setting:
        """Return the same with boxes narrowed by the widths of the nodes of a model."""
        boxes = list(self.boxes)
        for node, pick, width in zip(model.nodes, model.picks, widths, strict=True):
            source = self.view.nodes[node].inputs[0]
            low, high = (end.flatten(1) for end in boxes[source])
            middle = self.centre[source].flatten(1).gather(1, pick)
            reach = (self.eps[:, None] * width).to(middle.dtype)
            new_low = torch.maximum(low.gather(1, pick), middle - reach)
            new_high = torch.minimum(high.gather(1, pick), middle + reach)
            shape = boxes[source][0].shape
            boxes[source] = (
                low.scatter(1, pick, new_low).reshape(shape),
                high.scatter(1, pick, new_high).reshape(shape),
            )
        return replace(self, boxes=boxes)


@dataclass(frozen=True, eq=False)
class Found:
    """What multipliers were found for B samples, and what they prove.

    Attributes:
        lengths: (B, S') constants of the functions on their regions, float64; infinite where nothing is proved.
        logs: of the multipliers of every round, by activation node, (B, size) log e each; NaN for samples whose goal
            was reached before.
    """

    lengths: Tensor
    logs: list[dict[int, Tensor]]


def constants(setting: Setting, goal: Goal, steps: int) -> Tensor:
    """Return the constants of `search`."""
    return search(setting, goal, steps).lengths


def search(setting: Setting, goal: Goal, steps: int) -> Found:
    """Return constants of the functions on their regions, and multipliers.

    Args:
        setting: B samples.
        goal: of the same samples.
        steps: of the optimiser altogether.
    """
    sectors = setting.sectors
    counts = sum((s.radius > 0).flatten(1).sum(dim=1) for s in sectors.values()) + setting.rows.new_zeros(1).long()
    counts = (counts + setting.rows.shape[1]).expand(len(setting.rows))
    inputs = setting.view.nodes[0].size
    parts = groups(counts * (counts + inputs) * 8 * _COPIES)
    found = [_group(setting.take(part), goal.take(part), steps) for part in parts]
    order = torch.cat(parts)
    logs = []
    for now in range(max(len(f.logs) for f in found)):
        own = [(f.logs[now], part) for f, part in zip(found, parts, strict=True) if now < len(f.logs)]
        sizes = {node: log.shape[1] for part, _ in own for node, log in part.items()}
        full = {k: setting.eps.new_full((len(order), size), torch.nan) for k, size in sizes.items()}
        for part, samples in own:
            for node, log in part.items():
                full[node][samples] = log
        logs.append(full)
    return Found(torch.cat([f.lengths for f in found])[order.argsort()], logs)


def groups(sizes: Tensor) -> list[Tensor]:
    """Cut samples with bytes (B,) each into groups of about equal ones that fit the memory budget."""
    order = sizes.argsort(stable=True)
    found, start = [], 0
    for end in range(1, len(order) + 1):
        if end == len(order) or (end + 1 - start) * int(sizes[order[end]]) > GROUP_BYTES:
            found.append(order[start:end])
            start = end
    return found


def _group(setting: Setting, goal: Goal, steps: int) -> Found:
    """Return what is found for one group."""
    view, model = setting.view, setting.model()
    logs, covariance = first(model, goal.measure)
    lengths, sets = torch.full_like(covariance.lengths, torch.inf), []
    left, before = torch.arange(len(lengths), device=lengths.device), covariance.lengths
    while True:
        now = min(EACH, steps)
        found, steps = improve(model, logs, covariance, goal, now), steps - now
        lengths[left] = torch.minimum(lengths[left], found.least)
        sets.append(_of_all(spread_out(view, model, found.logs), left, len(lengths)))
        still = goal.open(found.lengths)
        still = still[goal.hopeful(before, found.lengths)[still]]
        if not len(still) or not steps:
            return Found(lengths, sets)
        left, before, goal = left[still], found.lengths[still], goal.take(still).without(found.lengths[still])
        spread = {node: log[still] for node, log in spread_out(view, model, found.logs).items()}
        setting = setting.take(still).narrowed(model.take(still), [width[still] for width in found.widths])
        model = setting.model()
        logs = carry_over(model, spread)
        covariance = carry(model, logs, goal.measure)


def _of_all(logs: Mapping[int, Tensor], samples: Tensor, count: int) -> dict[int, Tensor]:
    """Return the same for more samples, NaN for the others."""
    return {
        node: log.new_full((count, log.shape[1]), torch.nan).index_copy(0, samples, log) for node, log in logs.items()
    }


def spread_out(view: View, model: NoiseModel, logs: Logs) -> dict[int, Tensor]:
    """Return, by node, (B, size) log e of all neurons: of stable ones the largest."""
    found = {}
    for node, pick, log in zip(model.nodes, model.picks, logs, strict=True):
        found[node] = log.amax(dim=1, keepdim=True).expand(-1, view.nodes[node].size).scatter(1, pick, log)
    return found


def carry_over(model: NoiseModel, logs: Mapping[int, Tensor]) -> Logs:
    """Return multipliers of another model, spread out, for the unstable neurons of this one."""
    if not set(model.nodes) <= set(logs):
        return first(model)[0]
    return [logs[node].gather(1, pick) for node, pick in zip(model.nodes, model.picks, strict=True)]
