r"""Multipliers and boxes improved by turns, on samples in groups.

What multipliers prove of the neurons, |dz_i| <= eps sqrt(C_ii), narrows the boxes; narrower boxes give narrower
sectors, and multipliers stay inside the domain as these shrink. Samples whose goal is reached drop out.

Samples with about as many unstable neurons go together, as matrices are padded to the largest number of a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lipcert.bounds.local.covariance import Covariance, Logs, first_logs
from lipcert.bounds.local.improvement import Goal, improve
from lipcert.bounds.local.noise import NoiseModel, noise_model
from lipcert.bounds.local.pruning import Slopes
from lipcert.bounds.local.relaxations import Box
from lipcert.bounds.local.sectors import Sector
from lipcert.bounds.local.view import View
from lipcert.network.operators import Elementwise

GROUP_BYTES = 2**27  # of the matrices of one group
_COPIES = 12  # matrices of all rows that live at once, with what the gradient keeps
ROUNDS = 3  # of improvement, after the first multipliers


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
        nodes = ((index, node) for index, node in enumerate(self.view.nodes) if isinstance(node.op, Elementwise))
        return {
            index: self.slopes(self.view.activation(index), self.boxes[node.inputs[0]], self.centre[node.inputs[0]])
            for index, node in nodes
        }

    def model(self) -> NoiseModel:
        """Return the noise model of the functions."""
        return noise_model(self.view, self.sectors, len(self.view.nodes) - 1, self.rows)

    def narrowed(self, model: NoiseModel, proved: Covariance) -> Setting:
        """Return the same with boxes narrowed by what multipliers prove."""
        boxes = list(self.boxes)
        for node, pick, width in zip(model.nodes, model.picks, proved.widths, strict=True):
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


def constants(setting: Setting, goal: Goal, steps: int) -> Tensor:
    """Return (B, S') constants of the functions on their regions, float64; infinite where nothing is proved.

    Args:
        setting: B samples.
        goal: of the same samples.
        steps: of the optimiser altogether.
    """
    sectors = setting.sectors.values()
    counts = sum((sector.radius > 0).flatten(1).sum(dim=1) for sector in sectors) + setting.rows.new_zeros(1).long()
    counts = (counts + setting.rows.shape[1]).expand(len(setting.rows))
    inputs = setting.view.nodes[0].size
    parts = groups(counts * (counts + inputs) * 8 * _COPIES)
    found = [_group(setting.take(part), goal.take(part), steps) for part in parts]
    order = torch.cat(parts)
    return torch.cat(found)[order.argsort()]


def groups(sizes: Tensor) -> list[Tensor]:
    """Cut samples with bytes (B,) each into groups of about equal ones that fit the memory budget."""
    order = sizes.argsort(stable=True)
    found, start = [], 0
    for end in range(1, len(order) + 1):
        if end == len(order) or (end + 1 - start) * int(sizes[order[end]]) > GROUP_BYTES:
            found.append(order[start:end])
            start = end
    return found


def _group(setting: Setting, goal: Goal, steps: int) -> Tensor:
    """Return the constants of one group."""
    model = setting.model()
    logs = first_logs(model)
    proved, logs = improve(model, logs, goal, 0)
    best = proved.lengths
    left = torch.arange(len(best), device=best.device)
    for _ in range(ROUNDS if steps else 0):
        still = goal.open(best[left])
        if not len(still):
            break
        left, goal = left[still], goal.take(still).without(best[left[still]])
        model, logs = model.take(still), [log[still] for log in logs]
        setting = setting.take(still).narrowed(model, proved.take(still))
        old, model = model, setting.model()
        logs = carry_over(setting, logs, old, model)
        proved, logs = improve(model, logs, goal, -(-steps // ROUNDS))
        best[left] = torch.minimum(best[left], proved.lengths)
    return best


def carry_over(setting: Setting, logs: Logs, old: NoiseModel, new: NoiseModel) -> Logs:
    """Return multipliers of one model for the unstable neurons of a narrower one."""
    if not set(new.nodes) <= set(old.nodes):
        return first_logs(new)
    known = dict(zip(old.nodes, zip(old.picks, logs, strict=True), strict=True))
    found = []
    for node, pick in zip(new.nodes, new.picks, strict=True):
        before, log = known[node]
        full = log.amax(dim=1, keepdim=True).expand(-1, setting.view.nodes[node].size)
        found.append(full.scatter(1, before, log).gather(1, pick))
    return found
