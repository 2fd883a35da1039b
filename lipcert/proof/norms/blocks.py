r"""Verified l2 norms of convolutions on an image, borders exact: the Gram matrix by rows of the image.

For a convolution A without dilation (`geometry` removes it), A A' couples two output rows only if they
share an input row: rows at most (taps - 1) // stride apart; A'A couples input rows at most taps - 1 apart.
Groups of so many rows make s^2 I - A A' block tridiagonal, and `is_psd` proves it. Slabs of A (the rows of
one group) have single weights as entries, so they are exact; slabs in the middle of the image are all
alike, and their products are computed once.

Rounding: an entry of the Gram matrix is a dot product with at most T = channels * taps terms that are not
zero (zeros add no error), so the error matrix is at most gamma_T |A||A|' entrywise, its spectral norm at
most gamma_T m^2 where m is an upper bound of || |A| ||_2 (`magnitude`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from lipcert.network.enclosure import TINY, Float, gamma
from lipcert.proof.norms.dense import shifted_gram
from lipcert.proof.norms.geometry import Axis, Indices, Kernel
from lipcert.proof.psd import is_psd
from lipcert.proof.rounding import product_down, product_up, sum_up

Links = list[tuple[Indices, Indices]]  # for each tap, the rows and the columns that meet


@dataclass(frozen=True)
class Layout:
    """How the Gram matrix of one part of a convolution is cut.

    Attributes:
        axis: the spatial axis whose rows are grouped.
        transposed: A'A is used, the rows are inputs; A A' otherwise.
        step: rows of the image per group.
        flops: estimated cost per group of channels.
    """

    axis: int
    transposed: bool
    step: int
    flops: float


def best_layout(kernel: Kernel, part: tuple[Axis, ...]) -> Layout:
    """Return the cheapest way to cut; a function of shapes only."""
    choices = [_layout(kernel, part, a, t) for a in range(len(part)) for t in (False, True)]
    return min(choices, key=lambda layout: layout.flops)


def blocks_flops(kernel: Kernel) -> float:
    """Return the estimated cost of `blocks_at_most`, infinite where the technique does not apply."""
    if not all(axis.is_simple for axis in kernel.axes):
        return math.inf
    return kernel.groups * sum(best_layout(kernel, part).flops for part in kernel.parts())


def _layout(kernel: Kernel, part: tuple[Axis, ...], axis: int, transposed: bool) -> Layout:
    along = part[axis]
    rows, columns = [(x.inputs, x.outputs) if transposed else (x.outputs, x.inputs) for x in part][axis]
    others = [x for j, x in enumerate(part) if j != axis]
    row_channels, column_channels = kernel.channels[::-1] if transposed else kernel.channels
    step = rows if along.circular else min(rows, max(1, along.taps - 1 if transposed else along.band))
    reach = (step + along.taps - 2) // along.stride + 1 if transposed else along.stride * (step - 1) + along.taps
    reach = columns if along.circular else min(columns, reach)
    n = step * row_channels * math.prod(x.inputs if transposed else x.outputs for x in others)
    width = reach * column_channels * math.prod(x.outputs if transposed else x.inputs for x in others)
    groups = -(-rows // step)
    flops = n * n * width + 2 / 3 * n**3 if groups == 1 else min(groups, 4) * 3 * n * n * width + groups * 4 * n**3
    return Layout(axis, transposed, step, float(flops))


def blocks_at_most(kernel: Kernel, claim: float, magnitude: float) -> bool:
    """Whether a convolution is proved to have l2 norm at most `claim`.

    Args:
        kernel: the convolution, weights of order 1; every axis `is_simple`.
        claim: the witness.
        magnitude: an upper bound of the l2 norm of the entrywise absolute value.
    """
    if claim <= 0:
        return False
    for part in kernel.parts():
        layout = best_layout(kernel, part)
        for weight in kernel.weight:
            if not _part_at_most(weight, part, layout, claim, magnitude):
                return False
    return True


def _part_at_most(weight: Float, part: tuple[Axis, ...], layout: Layout, claim: float, magnitude: float) -> bool:
    diagonal, below = _complement(weight, part, layout, product_down(claim, claim))
    terms = weight.shape[0 if layout.transposed else 1] * math.prod(weight.shape[2:])
    tiny = 3 * max(len(block) for block in diagonal) * terms * TINY
    return is_psd(diagonal, below, sum_up([product_up(gamma(terms), magnitude, magnitude), tiny]))


def _complement(
    weight: Float, part: tuple[Axis, ...], layout: Layout, square: float
) -> tuple[list[Float], list[Float]]:
    """Return the blocks of square I - A A' (or A'A); equal ones are the same array."""
    along = part[layout.axis]
    rows = along.inputs if layout.transposed else along.outputs
    slabs: dict[str, Float] = {}
    pivots: dict[str, Float] = {}
    crossings: dict[tuple[str, str, int], Float] = {}
    diagonal, below = [], []
    before: tuple[str, int] | None = None
    for start in range(0, rows, layout.step):
        size = min(layout.step, rows - start)
        first, links = _links(along, layout.transposed, start, size)
        key = _pattern(size, links)
        if key not in slabs:
            slabs[key] = _slab(weight, part, layout, links, size)
            flat = slabs[key].reshape(slabs[key].shape[0], -1)
            pivots[key] = shifted_gram(flat @ flat.T, square)
        diagonal.append(pivots[key])
        if before is not None:
            pair = (key, before[0], first - before[1])
            if pair not in crossings:
                crossings[pair] = -_crossing(slabs[key], slabs[before[0]], pair[2])
            below.append(crossings[pair])
        before = (key, first)
    return diagonal, below


def _links(axis: Axis, transposed: bool, start: int, size: int) -> tuple[int, Links]:
    """Return the first column that the rows [start, start + size) meet, and for each tap who meets whom.

    Rows are counted from `start`, columns from the first one.
    """
    found = []
    for tap in range(axis.taps):
        outputs, inputs = axis.pairs(tap)
        rows, columns = (inputs, outputs) if transposed else (outputs, inputs)
        inside = (rows >= start) & (rows < start + size)
        found.append((rows[inside] - start, columns[inside]))
    first = min((int(columns.min()) for _, columns in found if columns.size), default=0)
    return first, [(rows, columns - first) for rows, columns in found]


def _all_links(axis: Axis, transposed: bool) -> Links:
    pairs = [axis.pairs(tap) for tap in range(axis.taps)]
    return [(i, o) if transposed else (o, i) for o, i in pairs]


def _pattern(size: int, links: Links) -> str:
    return repr((size, [(rows.tolist(), columns.tolist()) for rows, columns in links]))


def _slab(weight: Float, part: tuple[Axis, ...], layout: Layout, links: Links, size: int) -> Float:
    """Return the rows of one group as (rows * channels, columns along the axis, other columns * channels)."""
    others = [axis for j, axis in enumerate(part) if j != layout.axis]
    swap = layout.transposed
    sides = [(axis.inputs, axis.outputs) if swap else (axis.outputs, axis.inputs) for axis in others]
    kernel = np.moveaxis(weight, 2 + layout.axis, 2)  # the axis first, and the channels last
    kernel = np.moveaxis(kernel, (0, 1), (-1, -2) if swap else (-2, -1))
    reach = max((int(columns.max()) + 1 for _, columns in links if columns.size), default=0)
    rows, columns = (size, *(r for r, _ in sides)), (reach, *(c for _, c in sides))
    slab = np.zeros((*rows, kernel.shape[-2], *columns, kernel.shape[-1]))
    pairs = [links, *(_all_links(axis, swap) for axis in others)]
    for tap in product(*(range(len(axis)) for axis in pairs)):
        chosen = [axis[k] for axis, k in zip(pairs, tap, strict=True)]
        row_index: list[Any] = [*np.ix_(*(r for r, _ in chosen)), slice(None)]
        column_index: list[Any] = [*np.ix_(*(c for _, c in chosen)), slice(None)]
        slab[tuple(row_index + column_index)] = kernel[tap]
    return slab.reshape(math.prod(rows) * kernel.shape[-2], reach, math.prod(columns[1:]) * kernel.shape[-1])


def _crossing(slab: Float, before: Float, offset: int) -> Float:
    """Return slab @ before' over the columns that both have; slab's first column is before's number `offset`."""
    low, high = max(0, offset), min(before.shape[1], offset + slab.shape[1])
    if high <= low:
        return np.zeros((slab.shape[0], before.shape[0]))
    left = slab[:, low - offset : high - offset].reshape(slab.shape[0], -1)
    return left @ before[:, low:high].reshape(before.shape[0], -1).T
