"""Lifted forms whose linear neurons are put into the rows that read them.

A neuron with alpha = beta = s has dv = s dz: a row that reads it may read s times what it reads. In the form that is
left it stays in its block, so that every neuron keeps its multiplier, but reads nothing and is read by nothing: in
the matrix of the multiplier rule it has a row and a column of its own, 2 lambda on the diagonal. That matrix is the one
before, at vectors with v = s z: any multipliers that prove a bound with it prove it without. So a linear neuron costs
nothing; as a neuron like others it would need an infinite multiplier to do so.

Rows then reach further back, so this is done for forms up to `MOST` entries only: it depends on sizes alone.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from lipcert.network.enclosure import Enclosure, Float
from lipcert.proof.lifted import Block, Lifted, Row

Place = tuple[slice | npt.NDArray[np.generic], ...]

MOST = 4000  # entries of all blocks together: the matrix may become a dense one of this order


def without_linear(lifted: Lifted) -> Lifted:
    """Return the form with its linear neurons put into the rows that read them; the same one where it has none."""
    linear = [_linear(block) for block in lifted.blocks]
    if not any(mask.any() for mask in linear) or sum(lifted.sizes) > MOST:
        return lifted
    rows: list[Row] = []  # of the blocks, linear neurons included
    for row in (*(block.row for block in lifted.blocks), lifted.output):
        rows.append(_through(row, lifted.blocks, rows))
    blocks = [
        replace(block, row={j: _cleared(w, (mask,)) for j, w in row.items()})
        for block, mask, row in zip(lifted.blocks, linear, rows[:-1], strict=True)
    ]
    return replace(lifted, blocks=tuple(blocks), output=rows[-1])


def _through(row: Row, blocks: tuple[Block, ...], before: list[Row]) -> Row:
    """Return what a row reads once linear neurons are replaced by what they read; `before`: rows of earlier blocks."""
    total: dict[int, Enclosure] = {}

    def add(j: int, term: Enclosure) -> None:
        total[j] = total[j] + term if j in total else term

    for j, matrix in row.items():
        linear = np.flatnonzero(_linear(blocks[j - 1])) if j > 0 else np.zeros(0, dtype=np.int64)
        if not len(linear):
            add(j, matrix)
            continue
        add(j, _cleared(matrix, (slice(None), linear)))
        lead = _taken(matrix, (slice(None), linear)) * Enclosure.exact(blocks[j - 1].alpha[linear])
        for i, inner in before[j - 1].items():
            add(i, lead @ _taken(inner, (linear,)))
    return total


def _linear(block: Block) -> npt.NDArray[np.bool_]:
    return np.asarray(block.alpha == block.beta)


def _taken(matrix: Enclosure, place: Place) -> Enclosure:
    return matrix.map(lambda a: a[place])


def _cleared(matrix: Enclosure, place: Place) -> Enclosure:
    def clear(a: Float) -> Float:
        a = a.copy()
        a[place] = 0.0
        return a

    return matrix.map(clear)
