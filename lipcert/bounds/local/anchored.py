r"""`anchored`: margins on l2 balls from the multiplier rule with the slopes seen from each sample.

A certificate at x compares x' only with x, so the sector of a neuron is that of its secants from z(x) (`sectors`),
much narrower than all slopes on the box. x is certified where margin_j > eps L_j for all rivals j, L_j from one set of
multipliers (`covariance`). First multipliers narrow the boxes (|dz_i| <= eps sqrt(C_ii)), and the sectors are taken
anew; then multipliers are improved on the samples that are still open.

Samples with about as many unstable neurons go together, as matrices are padded to the largest number of a group.
Source: sector bounds around an equilibrium (Yin, Seiler & Arcak 2021), here around a sample.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lipcert.bounds.local import crown
from lipcert.bounds.local.covariance import Covariance, carry, first_logs, improve
from lipcert.bounds.local.crown import Relaxed
from lipcert.bounds.local.margins import differences
from lipcert.bounds.local.noise import NoiseModel, noise_model
from lipcert.bounds.local.relaxations import Box
from lipcert.bounds.local.sectors import Sector, anchored_sector
from lipcert.bounds.local.view import View
from lipcert.network.operators import Elementwise

GROUP_BYTES = 2**27  # of the matrices of one group
_COPIES = 12  # matrices of all rows squared that live at once, with what the gradient keeps
SHRINK = 0.999  # boxes that do not become narrower than this are not worth new sectors


def margins(relaxed: Relaxed, labels: Tensor, steps: int) -> Tensor:
    """Return (B, classes - 1) lower bounds of all margins: the better of CROWN's and the anchored ones.

    Level: numerical.

    Args:
        relaxed: the network relaxed on l2 balls; its activations are elementwise.
        labels: (B,) int64.
        steps: of the optimiser, on samples that the first multipliers leave open.
    """
    found = crown.margins(relaxed, labels)
    open_ = (found.amin(dim=1) <= 0).nonzero()[:, 0]
    counts = _unstable(relaxed)[open_]
    order = open_[counts.argsort(stable=True)]
    sizes = counts.sort(stable=True).values + found.shape[1]
    for rows in _groups(order, sizes):
        here = _group_margins(relaxed.take(rows), labels[rows], steps)
        found[rows] = torch.maximum(found[rows], here.to(found.dtype))
    return found


def _unstable(relaxed: Relaxed) -> Tensor:
    """Return (B,) how many neurons are not linear on the boxes."""
    sectors = sectors_of(relaxed.view, relaxed.boxes, relaxed.view.trace(relaxed.ball.centre))
    return sum(((s.radius > 0).flatten(1).sum(dim=1) for s in sectors.values()), relaxed.ball.eps.new_zeros(1).long())


def _groups(order: Tensor, sizes: Tensor) -> list[Tensor]:
    """Cut samples, ascending in size, into groups that fit the memory budget."""
    groups, start = [], 0
    for end in range(1, len(order) + 1):
        bytes_ = (end - start) * int(sizes[end - 1]) ** 2 * 8 * _COPIES
        if bytes_ > GROUP_BYTES and end - 1 > start:
            groups.append(order[start : end - 1])
            start = end - 1
    if start < len(order):
        groups.append(order[start:])
    return groups


def _group_margins(relaxed: Relaxed, labels: Tensor, steps: int) -> Tensor:
    """Return (B, classes - 1) anchored margins of one group, float64."""
    view, centre = relaxed.view, relaxed.view.trace(relaxed.ball.centre)
    rows = differences(view, labels)
    at_centre = (rows.flatten(2) @ centre[-1].flatten(1)[..., None])[..., 0].double()
    eps = relaxed.ball.eps.double()
    last = len(view.nodes) - 1
    boxes = list(relaxed.boxes)
    model = noise_model(view, sectors_of(view, boxes, centre), last, rows)
    logs = first_logs(model)
    first = carry(model, logs)
    best = at_centre - eps[:, None] * first.lengths
    open_ = (best.amin(dim=1) <= 0).nonzero()[:, 0]
    if not len(open_):
        return best
    part, seen = relaxed.take(open_), [value[open_] for value in centre]
    boxes = [(low[open_], high[open_]) for low, high in boxes]
    if _narrow(view, boxes, seen, model, first, open_, eps) < SHRINK:
        model = noise_model(view, sectors_of(view, boxes, seen), last, rows[open_])
    else:
        model = model.take(open_)
    improved = improve(model, first_logs(model), at_centre[open_], part.ball.eps.double(), steps)
    best[open_] = torch.maximum(best[open_], at_centre[open_] - eps[open_, None] * improved.lengths)
    return best


def sectors_of(view: View, boxes: list[Box], centre: list[Tensor]) -> dict[int, Sector]:
    """Return the anchored sectors of all activation nodes.

    Args:
        view: the network; its activations are elementwise.
        boxes: of all nodes.
        centre: values of all nodes at the samples.
    """
    found = {}
    for index, node in enumerate(view.nodes):
        if isinstance(node.op, Elementwise):
            source = node.inputs[0]
            found[index] = anchored_sector(view.activation(index), boxes[source], centre[source])
    return found


def _narrow(
    view: View, boxes: list[Box], centre: list[Tensor], model: NoiseModel, proved: Covariance, rows: Tensor, eps: Tensor
) -> float:
    """Narrow boxes of pre-activations in place by |dz_i| <= eps sqrt(C_ii); return the mean ratio of widths."""
    ratios = []
    for node, picks, widths in zip(model.nodes, model.picks, proved.widths, strict=True):
        source = view.nodes[node].inputs[0]
        pick, reach = picks[rows], (eps[rows, None] * widths[rows]).to(view.dtype)
        middle = centre[source].flatten(1).gather(1, pick)
        low, high = (end.flatten(1) for end in boxes[source])
        new_low = torch.maximum(low.gather(1, pick), middle - reach)
        new_high = torch.minimum(high.gather(1, pick), middle + reach)
        before = (high - low).gather(1, pick)
        ratios.append(((new_high - new_low) / before.clamp(min=1e-30)).mean())
        shape = boxes[source][0].shape
        boxes[source] = (low.scatter(1, pick, new_low).reshape(shape), high.scatter(1, pick, new_high).reshape(shape))
    return float(torch.stack(ratios).min()) if ratios else 1.0
