"""What closed parts say to `proof.local`: trees, multipliers, middle slopes and weights of cuts, see its `parts`.

With d = size (1 - share) and k = size share the products of a ReLU sum up to size times

    w (t - w) (1 - share) + share w (h - w) = - (w - r t)^2 + r^2 t^2 + ...,    r = (1 - share) / 2,

so 1 / sigma^2 = 2 size, and the middle slope of v is r where w = v, and 1 - r where w = v - z. A cut with P w + Q t is
one of v and z, as w = (v - slope z - constant) / jump and t = +-(z - kink).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lipcert.bounds.local.ascent import multipliers
from lipcert.bounds.local.kinks import Seen
from lipcert.bounds.local.trees import Found
from lipcert.bounds.local.trees import Parts as Closed
from lipcert.bounds.local.view import View
from lipcert.network.enclosure import Float
from lipcert.proof.local.parts import LEAF, Parts

_LEAST = 2.0**-20  # of r, see `proof.local.tilted`


def proposed(view: View, found: Sequence[Found], some: Tensor) -> Parts | None:
    """Return what whole balls that are closed say, for some samples of the batch; None for nothing.

    Balls that were cut are left out: their trees hold for one margin each, not for a sample.
    """
    place = {sample: k for k, sample in enumerate(some.tolist())}
    rows = [row for part in found for row in _rows(view, part, place)]
    if not rows:
        return None
    rows.sort(key=lambda row: row.leaf)
    nodes = list(rows[0].arrays)
    stacked = {
        node: [np.stack(parts) for parts in zip(*(row.arrays[node] for row in rows), strict=True)] for node in nodes
    }
    return Parts(
        cuts=np.tile(np.array(LEAF, dtype=np.int64), (len(some), 1)),
        at=np.zeros(len(some)),
        leaves=np.array([row.leaf for row in rows], dtype=np.int64),
        shifts=np.zeros((len(rows), view.nodes[0].size)),
        multipliers={node: parts[0] for node, parts in stacked.items()},
        slopes={node: parts[1] for node, parts in stacked.items()},
        functions=np.array([(k, row.rival) for k, row in enumerate(rows)], dtype=np.int64),
        weights={node: (parts[2], parts[3]) for node, parts in stacked.items()},
    )


@dataclass(frozen=True, eq=False)
class _Row:
    """One margin on one whole ball: by activation node, e, m, p and q, (*shape) each."""

    leaf: int
    rival: int
    arrays: dict[int, tuple[Float, ...]]


def _rows(view: View, found: Found, place: dict[int, int]) -> list[_Row]:
    """Return the rows of the whole balls of those samples that have a place."""
    rows = []
    for closed in found.closed:
        values = _of_neurons(found.around, closed)
        for k, (sample, trail) in enumerate(zip(found.samples[closed.samples].tolist(), closed.trails, strict=True)):
            if sample in place and not trail:
                own = closed.samples[k : k + 1]
                arrays = _spread(view, found.around, own, [part[k : k + 1] for part in values])
                rows.append(_Row(place[sample], int(closed.functions[k]), arrays))
    return rows


def _of_neurons(around: Seen, closed: Closed) -> list[Tensor]:
    """Return e, m, p and q, (P, u) each."""
    chosen = multipliers(closed.kinks, closed.ascent.best)
    sign, jump, slope = (part[closed.samples] for part in (around.signs, around.jumps, around.slopes))
    half = (1.0 - chosen.share) / 2.0
    over, side, chord = chosen.cuts.unbind(dim=1)
    s = closed.kinks.high / (closed.kinks.high - closed.kinks.low)
    of_w, of_t = over + side - chord, s * chord - side
    p = torch.where(sign != 0, of_w / torch.where(jump != 0, jump, 1.0), 0.0)
    q = torch.where(sign != 0, sign * of_t - p * slope, 0.0)
    e = 1.0 / (2.0 * chosen.size * half.clamp(min=_LEAST))
    return [e, torch.where(sign < 0, 1.0 - half, half), p, q]


def _spread(view: View, around: Seen, own: Tensor, values: Sequence[Tensor]) -> dict[int, tuple[Float, ...]]:
    """Return e, m, p and q of all neurons of activation nodes; stable ones get the largest e, and nothing else."""
    arrays, first = dict[int, tuple[Float, ...]](), 0
    for node, picks in zip(around.model.nodes, around.model.picks, strict=True):
        pick = picks[own]
        behind = slice(first, first + pick.shape[1])
        free = around.signs[own][:, behind] != 0
        e, m, p, q = (part[:, behind] for part in values)
        largest = torch.where(free, e, 0.0).amax(dim=1, keepdim=True).clamp(min=_LEAST)
        fills = (
            (torch.where(free, e, largest), largest),
            (torch.where(free, m, 0.5), 0.5),
            (p, 0.0),
            (q, 0.0),
        )
        size, shape = view.nodes[node].size, view.nodes[node].shape
        full = []
        for part, fill in fills:
            whole = torch.zeros((1, size), dtype=part.dtype, device=part.device) + fill
            full.append(whole.scatter(1, pick, part).reshape(shape).cpu().numpy())
        arrays[node] = tuple(full)
        first += pick.shape[1]
    return arrays
