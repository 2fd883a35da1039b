"""Making the lifted form small and of order one before solving.

Exact reductions, all at the centres of the enclosures:

* Units: powers of two v_k = 2^e_k u_k make every row of norm about 1; lambda_k = lambda~_k 2^(-2 e_k).
* A neuron with alpha = beta = s is linear, v = s z + w with w = 0: the rows that read it read instead what it reads.
* A neuron that nothing from the input reaches, or that nothing towards the output reads, plays no part.
* Of the input only W W' matters, W all rows that read it, one below the other: where there are fewer of them than
  inputs, W is replaced by its triangular factor (QR). So is C where there are more outputs than neurons that C reads.

What the left-out neurons get instead of a multiplier of their own is said in `_restore`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lipcert.network.enclosure import Enclosure, Float
from lipcert.proof.lifted import Block, Lifted

Mask = npt.NDArray[np.bool_]
Rows = dict[int, Float]  # block -> matrix

_POWER_STEPS = 4


@dataclass(frozen=True, eq=False)
class Reduced:
    """A small lifted form and what is needed to go back.

    Attributes:
        small: the lifted form of the live neurons; it may have no blocks, and no output.
        live, linear: per original block, which neurons are in `small`, and which are linear.
        rows: per original block, then the output: what it reads in the new units, linear neurons expanded. The column
            of a linear neuron is the whole influence of its w, also through other linear ones.
        exponents: e_k of the original blocks, the input first and the output last.
    """

    small: Lifted
    live: list[Mask]
    linear: list[Mask]
    rows: list[Rows]
    exponents: list[int]


def reduce_lifted(lifted: Lifted) -> Reduced:
    """The reduced lifted form."""
    given = [{j: w.mid for j, w in row.items()} for row in [*(b.row for b in lifted.blocks), lifted.output]]
    exponents = _exponents(given)
    scaled = [
        {j: np.ldexp(w, exponents[j] - exponents[k]) for j, w in row.items()} for k, row in enumerate(given, start=1)
    ]
    linear = [~(block.alpha < block.beta) for block in lifted.blocks]
    rows = _expanded(scaled, [block.alpha for block in lifted.blocks], linear)
    live = live_neurons(rows, linear)
    return Reduced(_cut(lifted, rows, live), live, linear, rows, exponents)


def _exponents(rows: list[Rows]) -> list[int]:
    """Powers of two near the size of each block, from the norms of what it reads."""
    exponents = [0]
    for row in rows:
        sizes = [_size(w) + exponents[j] for j, w in row.items() if w.any()]
        exponents.append(max(sizes or [exponents[j] for j in row], default=0))
    return exponents


def _size(w: Float) -> int:
    """The exponent of the spectral norm to within one or two, by a few power steps, without overflow.

    (Frobenius norms of wide layers are larger by orders of magnitude; over 64 layers that adds up to 2^180.)
    """
    top = math.frexp(float(np.abs(w).max()))[1]
    scaled = np.ldexp(w, -top)
    vector = np.abs(scaled).sum(axis=0)
    for _ in range(_POWER_STEPS):
        vector = scaled.T @ (scaled @ (vector / np.linalg.norm(vector)))
        if not vector.any():
            return top + math.frexp(float(np.linalg.norm(scaled)))[1]
    return top + math.frexp(math.sqrt(float(np.linalg.norm(vector))))[1]


def _expanded(rows: list[Rows], slopes: list[Float], linear: list[Mask]) -> list[Rows]:
    """The rows with v = s z + w put in for each linear neuron."""
    done: list[Rows] = []
    for row in rows:
        total = dict(row)
        for j, w in row.items():
            if j == 0 or not linear[j - 1].any():
                continue
            mask = linear[j - 1]
            lead = w[:, mask] * slopes[j - 1][mask]
            for i, inner in done[j - 1].items():
                term = lead @ inner[mask]
                total[i] = total[i] + term if i in total else term
        done.append(total)
    return done


def live_neurons(rows: list[Rows], linear: list[Mask]) -> list[Mask]:
    """Which neurons are not linear and have both an input and an output, along paths of non-zero weights.

    rows: of each block, then of the output; blocks are counted from 1, 0 is the input.
    """
    reached: list[Mask] = []
    for row, straight in zip(rows, linear, strict=False):
        seen = np.zeros(len(straight), dtype=bool)
        for j, w in row.items():
            seen |= ((w if j == 0 else w[:, reached[j - 1]]) != 0).any(axis=1)
        reached.append(seen & ~straight)
    used = [np.zeros(len(straight), dtype=bool) for straight in linear]
    for k in range(len(rows) - 1, -1, -1):
        for j, w in rows[k].items():
            if j > 0:
                readers = w if k == len(linear) else w[used[k] & ~linear[k]]
                used[j - 1] |= (readers != 0).any(axis=0)
    return [a & b for a, b in zip(reached, used, strict=True)]


def _cut(lifted: Lifted, rows: list[Rows], live: list[Mask]) -> Lifted:
    """The lifted form of the live neurons."""
    masks = [np.ones(lifted.inputs, dtype=bool), *live]
    kept = [0, *(k for k, mask in enumerate(live, start=1) if mask.any())]
    number = {k: i for i, k in enumerate(kept)}

    def part(row: Rows, mine: Mask | slice) -> Rows:
        parts = {number[j]: w[mine][:, masks[j]] for j, w in row.items() if j in number}
        return {j: w for j, w in parts.items() if w.any()}

    small = [part(rows[k - 1], masks[k]) for k in kept[1:]]
    output = _compressed_output(part(rows[-1], slice(None)))
    inputs = _compressed_input([*small, output], lifted.inputs)
    blocks = []
    for k, row in zip(kept[1:], small, strict=True):
        block, mask = lifted.blocks[k - 1], live[k - 1]
        blocks.append(Block(block.node, block.alpha[mask], block.beta[mask], _exact(row)))
    return Lifted(inputs, tuple(blocks), _exact(output))


def _exact(row: Rows) -> dict[int, Enclosure]:
    return {j: Enclosure.exact(w) for j, w in row.items()}


def _compressed_output(output: Rows) -> Rows:
    """C replaced by its triangular factor where it has more rows than columns."""
    whole = np.hstack(list(output.values())) if output else np.zeros((0, 1))
    if whole.shape[0] <= whole.shape[1]:
        return output
    ends = np.cumsum([w.shape[1] for w in output.values()])
    return dict(zip(output, np.split(_triangle(whole), ends[:-1], axis=1), strict=True))


def _triangle(tall: Float) -> Float:
    """The triangular factor R: R'R is that of the matrix, which has more rows than columns."""
    return np.asarray(np.linalg.qr(tall, mode="r"))


def _compressed_input(rows: list[Rows], inputs: int) -> int:
    """All rows that read the input replaced (in place) by their triangular factor; the number of inputs left."""
    readers = [row for row in rows if 0 in row]
    if sum(len(row[0]) for row in readers) >= inputs or not readers:
        return inputs
    whole = _triangle(np.vstack([row[0] for row in readers]).T).T
    ends = np.cumsum([len(row[0]) for row in readers])
    for row, rest in zip(readers, np.split(whole, ends[:-1]), strict=True):
        row[0] = rest
    return len(whole)
