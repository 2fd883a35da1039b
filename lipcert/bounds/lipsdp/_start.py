"""Where the interior-point method starts: near the central path, in units where every multiplier is 1.

Two passes through the blocks. Eliminating the first k of them from Z leaves before the others a covariance bound P of
the blocks still in use (`bounds.frontier`): with P = L L' and xi = L u the rest is again a lifted form, of input u.

1. Layer by layer: `_layers`.
2. Windows of some blocks, each centred jointly with the rows that next read it as its output, of which the first half
   is kept: what a multiplier should be depends on a few layers after it. The barrier parameter kappa is that of the
   whole network, so the pieces fit: on deep networks some four to ten Newton steps then centre the whole, against
   forty and more from pass 1 alone (they grow with the depth: each step changes a multiplier by a bounded factor).

Cost: for windows of m blocks O(N w^2 m^2) times the Newton steps (m is 8 up to 24 blocks, then at least 16 and a
quarter of the depth, with windows inside the windows), against N^3/3 = N w^2 l^2 / 3 for one step on the whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch

from lipcert.bounds.frontier import Addition, Frontier, last_reader
from lipcert.bounds.lipsdp._clock import Clock
from lipcert.bounds.lipsdp._layers import CentredLayers
from lipcert.bounds.lipsdp._newton import centre
from lipcert.bounds.lipsdp._path import best_f
from lipcert.bounds.lipsdp._system import System
from lipcert.network.enclosure import Enclosure, Float
from lipcert.proof.lifted import Block, Lifted, Row

_DIRECT = 8
_SHORT = 24
_LOOSE = 1.0
_ROOM = 0.3


@dataclass(frozen=True)
class Start:
    """A system in units v_k = scale_k u_k and F = unit F~ where the interior point y is all ones."""

    system: System
    y: torch.Tensor
    scale: list[torch.Tensor]
    unit: float


@dataclass(frozen=True)
class Plan:
    """What all windows share: the barrier parameter, the time limit, and the torch device."""

    kappa: float
    clock: Clock
    device: str


def start(lifted: Lifted, plan: Plan) -> Start:
    """The start described above; scale_k = lambda_k^(-1/2), so it is a congruence of Z.

    Raises:
        numpy.linalg.LinAlgError: gains over- or underflow.
    """
    return _at(lifted, plan, *_rough(lifted, plan))


def _at(lifted: Lifted, plan: Plan, lam: list[Float], f: float) -> Start:
    scale = [torch.tensor(part, dtype=torch.float64, device=plan.device).rsqrt() for part in lam]
    system = System.of(lifted, plan.clock, plan.device).rescaled(scale, f**0.5)
    return Start(system, system.alpha[0].new_ones(system.neurons + 1), scale, f)


def _rough(lifted: Lifted, plan: Plan) -> tuple[list[Float], float]:
    """Multipliers and F for any depth: pass 1, or pass 2 over windows that are started in the same way."""
    blocks = len(lifted.blocks)
    if blocks > _DIRECT and not plan.clock.is_up:
        return _windows(lifted, plan, _DIRECT if blocks <= _SHORT else max(2 * _DIRECT, blocks // 4))
    lam = CentredLayers(plan.clock).multipliers(lifted)
    begin = _at(lifted, plan, lam, 1.0)
    f = best_f(begin.system, begin.y[:-1])
    if not f > 0.0:
        raise np.linalg.LinAlgError("LipSDP start: multipliers that were inside are not")
    return lam, _ROOM * f


def _windows(lifted: Lifted, plan: Plan, size: int) -> tuple[list[Float], float]:
    """Pass 2, by windows of `size` blocks of which the first half is kept."""
    last = last_reader(lifted)
    frontier = Frontier.of_input(lifted.inputs)
    found: list[Float] = []
    while True:
        first, end = len(found), min(len(found) + size, len(lifted.blocks))
        window = _window(lifted, frontier, first, end)
        begin = start(window, plan)
        y, _ = centre(begin.system, begin.y, plan.kappa, _LOOSE)
        parts = zip(begin.scale, begin.system.split(y[:-1]), strict=True)
        lam = [(part / scale.square()).cpu().numpy() for scale, part in parts]
        if end == len(lifted.blocks):
            return found + lam, begin.unit * float(y[-1])
        for k, values in enumerate(lam[: size // 2], start=first + 1):
            block = lifted.blocks[k - 1]
            keep = tuple(b for b in (*frontier.blocks, k) if last[b] > k)
            new = Addition(k, block.row, frontier.gain(block.row), block.alpha, block.beta, keep)
            frontier = new.join(frontier, 0.5 / values)
        found += lam[: size // 2]


def _window(lifted: Lifted, frontier: Frontier, first: int, end: int) -> Lifted:
    """The blocks first + 1, ..., end behind a frontier; its outputs are the rows that next read what is left."""
    root = scipy.linalg.cholesky(frontier.covariance, lower=True)
    inside = range(first + 1, end + 1)
    known = {*frontier.blocks, *inside}

    def seen(row: Row) -> Row:
        parts = {j - first: w for j, w in row.items() if j in inside}
        if any(j in frontier.blocks for j in row):
            parts[0] = Enclosure.exact(frontier.matrix(row) @ root)
        return parts

    blocks = [Block(b.node, b.alpha, b.beta, seen(b.row)) for b in lifted.blocks[first:end]]
    rows = [block.row for block in lifted.blocks[end:]] + [lifted.output]
    read: set[int] = set()
    outputs: list[Row] = []
    for row in rows:
        fresh = known.intersection(row) - read
        if fresh:
            outputs.append(seen({j: w for j, w in row.items() if j in known}))
            read |= fresh
    return Lifted(len(root), tuple(blocks), _stacked(outputs))


def _stacked(rows: list[Row]) -> Row:
    """Some rows, one below the other, each divided by its norm."""
    if len(rows) == 1:
        return rows[0]
    widths = {j: w.shape[1] for row in rows for j, w in row.items()}
    total: dict[int, Enclosure] = {}
    norms = [sum(float(np.linalg.norm(w.mid)) for w in row.values()) or 1.0 for row in rows]
    for j, width in widths.items():
        parts = [
            row[j].mid / norm if j in row else np.zeros((next(iter(row.values())).shape[0], width))
            for row, norm in zip(rows, norms, strict=True)
        ]
        total[j] = Enclosure.exact(np.vstack(parts))
    return total
