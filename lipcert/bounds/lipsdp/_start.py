"""Where the interior-point method starts: near the central path, in units where every multiplier is 1.

Two passes through the blocks. Eliminating the first k of them from Z leaves before the others a covariance bound P of
the blocks still in use (`bounds.frontier`): with P = L L' and xi = L u the rest is again a lifted form, of input u.

1. Layer by layer: `_layers`.
2. Windows of up to sixteen blocks, eight on from one to the next, each centred jointly with the rows that next read it
   as its output: what a multiplier should be depends on some layers after it. A window starts from what the one
   before found, and from pass 1 for its last eight blocks. The barrier parameter kappa is that of the whole network,
   so the pieces fit.

Without pass 2 the steps on the whole grow with the depth (each changes a multiplier by a bounded factor). Its cost is
some Hessians for sixteen blocks, O(N w^2 16^2), against N w^2 l^2 / 3 for one Hessian of all l blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from lipcert.bounds.frontier import Addition, Frontier, last_reader
from lipcert.bounds.lipsdp._arrays import Array, array, to_numpy
from lipcert.bounds.lipsdp._centre import Logarithm, centre
from lipcert.bounds.lipsdp._clock import Clock
from lipcert.bounds.lipsdp._layers import CentredLayers
from lipcert.bounds.lipsdp._path import best_f
from lipcert.bounds.lipsdp._system import System
from lipcert.network.enclosure import Enclosure, Float
from lipcert.proof.lifted import Block, Lifted, Row

_HOP = 8
_LONG = 16
_LOOSE = 1.0
_ROOM = 0.3


@dataclass(frozen=True)
class Start:
    """A system in units v_k = scale_k u_k and F = unit F~ where the interior point y is all ones."""

    system: System
    y: Array
    scale: list[Array]
    unit: float


@dataclass(frozen=True)
class Plan:
    """What all windows share: the barrier parameter, the time limit, and the device."""

    kappa: float
    clock: Clock
    device: str


def start(lifted: Lifted, plan: Plan) -> Start:
    """The start described above; scale_k = lambda_k^(-1/2), so it is a congruence of Z.

    Raises:
        numpy.linalg.LinAlgError: gains over- or underflow.
    """
    last, blocks = last_reader(lifted), len(lifted.blocks)
    frontier = Frontier.of_input(lifted.inputs)
    kept: list[Float] = []
    ahead: list[Float] = []  # the blocks of the last window that are not kept yet
    f = None
    for end in (*range(_HOP, blocks, _HOP), blocks):
        done = max(end - _LONG, 0) - len(kept)
        frontier = _advanced(lifted, last, frontier, len(kept), ahead[:done])
        kept, ahead = kept + ahead[:done], ahead[done:]
        behind = _advanced(lifted, last, frontier, len(kept), ahead)
        rest = _window(lifted, behind, len(kept) + len(ahead), end)
        ahead = ahead + CentredLayers(plan.clock).multipliers(rest)
        if end < blocks or kept:
            ahead, f = _centred(_window(lifted, frontier, len(kept), end), plan, ahead)
    return _at(lifted, plan, kept + ahead, f)


def _at(lifted: Lifted, plan: Plan, lam: list[Float], f: float | None = None) -> Start:
    """The start with these multipliers and F; without F: well inside."""
    scale = [array(part, plan.device) ** -0.5 for part in lam]
    system = System.of(lifted, plan.clock, plan.device)
    if f is None:
        scaled = system.rescaled(scale, 1.0)
        f = _ROOM * best_f(scaled, scaled.ones(scaled.neurons))
        if not f > 0.0:
            raise np.linalg.LinAlgError("LipSDP start: multipliers that were inside are not")
    system = system.rescaled(scale, f**0.5)
    return Start(system, system.ones(system.neurons + 1), scale, f)


def _centred(window: Lifted, plan: Plan, lam: list[Float]) -> tuple[list[Float], float]:
    """Multipliers and F of a window near its central path."""
    begin = _at(window, plan, lam)
    y, _ = centre(begin.system, begin.y, Logarithm(plan.kappa), _LOOSE)
    parts = zip(begin.scale, begin.system.split(y[:-1]), strict=True)
    return [to_numpy(part / scale**2) for scale, part in parts], begin.unit * float(y[-1])


def _advanced(lifted: Lifted, last: list[int], frontier: Frontier, first: int, lam: list[Float]) -> Frontier:
    """A frontier behind the blocks 1, ..., first with some more blocks eliminated."""
    for k, values in enumerate(lam, start=first + 1):
        block = lifted.blocks[k - 1]
        keep = tuple(b for b in (*frontier.blocks, k) if last[b] > k)
        new = Addition(k, block.row, frontier.gain(block.row), block.alpha, block.beta, keep)
        frontier = new.join(frontier, 0.5 / values)
    return frontier


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
