"""The blocks of a lifted form put into groups, in which Z is block tridiagonal.

Blocks of equal distance from the input in the graph of non-zero blocks of Z form a group (`proof.inequality`), and
neighbouring groups are joined while they are small. Group 0 is the input alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lipcert.network.enclosure import Float
from lipcert.proof.inequality import grouping
from lipcert.proof.lifted import Lifted, Row

_JOINED = 64
"""Neurons up to which groups are joined: what small matrices cost is the number of calls."""

Matrices = dict[int, Float]  # group -> matrix


@dataclass(frozen=True, eq=False)
class Groups:
    """A lifted form by groups, at the centres of its enclosures.

    Attributes:
        sizes: of the groups, the input first. rows, alpha, beta: of the groups 1, 2, ... output: C.
        places: where the neurons of each block of the lifted form stand among all, block by block.
    """

    sizes: tuple[int, ...]
    rows: list[Matrices]
    output: Matrices
    alpha: list[Float]
    beta: list[Float]
    places: list[slice]

    @classmethod
    def of(cls, lifted: Lifted) -> Groups:
        """The groups of a lifted form."""
        groups = _blocks_of_groups(lifted)
        sizes = tuple(sum(lifted.sizes[b] for b in group) for group in groups)
        home: dict[int, tuple[int, slice]] = {}  # group of each block, and its rows in it
        for g, group in enumerate(groups):
            ends = np.cumsum([lifted.sizes[b] for b in group]).tolist()
            home |= {b: (g, slice(end - lifted.sizes[b], end)) for b, end in zip(group, ends, strict=True)}

        def matrices(parts: Iterable[tuple[slice, Row]], count: int) -> Matrices:
            found: Matrices = {}
            for here, row in parts:
                for j, w in row.items():
                    g, there = home[j]
                    found.setdefault(g, np.zeros((count, sizes[g])))[here, there] = w.mid
            return {g: found[g] for g in sorted(found)}

        blocks = [[lifted.blocks[b - 1] for b in group] for group in groups[1:]]
        rows = [
            matrices(((home[b][1], lifted.blocks[b - 1].row) for b in group), size)
            for group, size in zip(groups[1:], sizes[1:], strict=True)
        ]
        output = matrices([(slice(None), lifted.output)], next(iter(lifted.output.values())).shape[0])
        alpha = [np.concatenate([block.alpha for block in group]) for group in blocks]
        beta = [np.concatenate([block.beta for block in group]) for group in blocks]
        starts = np.cumsum([0, 0, *sizes[1:]]).tolist()
        places = [slice(starts[g] + p.start, starts[g] + p.stop) for b, (g, p) in sorted(home.items()) if b > 0]
        return cls(sizes, rows, output, alpha, beta, places)


def _blocks_of_groups(lifted: Lifted) -> list[list[int]]:
    """The blocks of each group."""
    pairs = {(k, j) for k, block in enumerate(lifted.blocks, start=1) for j in block.row}
    curved = [block.row for block in lifted.blocks if ((block.alpha != 0) & (block.beta != 0)).any()]
    for row in (*curved, lifted.output):
        pairs.update((i, j) for i in row for j in row)
    levels = grouping(pairs, lifted.sizes).levels
    groups: list[list[int]] = [[0]]
    width = _JOINED
    for level in range(1, max(max(levels), 1) + 1):
        found = [b for b in range(1, len(levels)) if max(levels[b], 1) == level]
        size = sum(lifted.sizes[b] for b in found)
        if width + size > _JOINED:
            groups.append([])
            width = 0
        groups[-1] += found
        width += size
    return groups
