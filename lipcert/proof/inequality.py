r"""The matrix of the multiplier rule, every entry enclosed, as a block-tridiagonal matrix.

    Z = E_x' E_x + sum_k 2 [ E_k' Lambda_k E_k  -  sym( E_k' Lambda_k (alpha_k + beta_k) R_k )
                             + R_k' Lambda_k alpha_k beta_k R_k ] - F C'C

See `rules.multipliers` for the theorem that it serves.

Every entry of Z is computed in `Enclosure` arithmetic, so Z is known up to entrywise radii r_ij. For the
difference D and any s > 0, |x'Dx| <= sum_ij r_ij |x_i| |x_j| <= sum_i x_i^2 sum_j r_ij s_j / s_i, as
2 |x_i| |x_j| <= x_i^2 s_j / s_i + x_j^2 s_i / s_j. These t_i = sum_j r_ij s_j / s_i are what `psd` subtracts; s_i is
the power of two near Z_ii^(-1/2), so that rows of very different size (a layer of weights 2^60 before one of 2^-60)
do not spoil each other. Blocks are grouped by their distance from the input, which makes Z block tridiagonal: for a
chain one group per layer, for a residual network one per residual block. Cost: sum over groups of n_g^3.

Rows may be stacks of matrices, (..., n, n_j) with the same leading axes: then so is Z (see `rules.shift_invariant`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from lipcert.network.enclosure import LEAST, TINY, UNIT, Enclosure, Float, round_up
from lipcert.proof.lifted import Lifted
from lipcert.proof.rounding import inflate

Blocks = dict[tuple[int, int], Enclosure]  # lower triangle: (row block, column block), row >= column


def assemble(lifted: Lifted, multipliers: list[Float]) -> Blocks:
    """Return Z without its last term, -F C'C, as enclosed blocks of the lower triangle."""
    blocks: Blocks = {(0, 0): Enclosure.exact(np.eye(lifted.inputs))}
    for k, (block, values) in enumerate(zip(lifted.blocks, multipliers, strict=True), start=1):
        weight = Enclosure.exact(2.0 * values)
        alpha, beta = Enclosure.exact(block.alpha), Enclosure.exact(block.beta)
        _add(blocks, k, k, weight.map(np.diag))
        crossing = -(Enclosure.exact(values) * (alpha + beta)).reshape(-1, 1)
        curved = (weight * alpha * beta).reshape(-1, 1)
        for j, matrix in block.row.items():
            _add(blocks, k, j, crossing * matrix)
            if (block.alpha != 0).any() and (block.beta != 0).any():
                for i, other in block.row.items():
                    if i >= j:
                        _add(blocks, i, j, other.map(_transposed) @ (curved * matrix))
    return blocks


def add_output(blocks: Blocks, lifted: Lifted, target: float) -> None:
    """Add -F C'C in place."""
    scale = Enclosure.exact(-target)
    for j, matrix in lifted.output.items():
        for i, other in lifted.output.items():
            if i >= j:
                _add(blocks, i, j, scale * (other.map(_transposed) @ matrix))


def _add(blocks: Blocks, i: int, j: int, term: Enclosure) -> None:
    blocks[i, j] = blocks[i, j] + term if (i, j) in blocks else term


@dataclass(frozen=True)
class Grouping:
    """Where each block stands once blocks of equal distance from the input form one group.

    Attributes:
        levels: group of each block. start: its first row within the group. widths: sizes of the groups.
    """

    levels: tuple[int, ...]
    start: tuple[int, ...]
    widths: tuple[int, ...]

    def places(self, sizes: tuple[int, ...]) -> list[slice]:
        """Return the rows of each block within its group."""
        return [slice(start, start + size) for start, size in zip(self.start, sizes, strict=True)]


def grouping(blocks: Collection[tuple[int, int]], sizes: tuple[int, ...]) -> Grouping:
    """Group the blocks by their distance from the input in the graph of non-zero blocks: Z is block tridiagonal."""
    levels = _levels(len(sizes), blocks)
    widths = [0] * (max(levels) + 1)
    start = []
    for size, level in zip(sizes, levels, strict=True):
        start.append(widths[level])
        widths[level] += size
    return Grouping(tuple(levels), tuple(start), tuple(widths))


def group(blocks: Blocks, lifted: Lifted) -> tuple[list[Float], list[Float], list[Float]]:
    """Return Z as block tridiagonal: diagonal groups, groups below the diagonal, and t_i of all radii per group."""
    return tridiagonal(blocks, lifted.sizes)


def tridiagonal(blocks: Blocks, sizes: tuple[int, ...]) -> tuple[list[Float], list[Float], list[Float]]:
    """Return any such matrix, with blocks of these sizes, as `group` does."""
    where = grouping(blocks, sizes)
    levels, places, widths = where.levels, where.places(sizes), where.widths
    batch = _batch(blocks)
    diagonal = [np.zeros((*batch, n, n)) for n in widths]
    below = [np.zeros((*batch, m, n)) for n, m in pairwise(widths)]
    for (i, j), block in blocks.items():
        centre = _symmetric(block)[0] if i == j else block.mid
        if levels[i] > levels[j]:
            below[levels[j]][..., places[i], places[j]] = centre
        elif levels[i] < levels[j]:
            below[levels[i]][..., places[j], places[i]] = _transposed(centre)
        else:
            diagonal[levels[i]][..., places[i], places[j]] = centre
            diagonal[levels[i]][..., places[j], places[i]] = _transposed(centre)
    return diagonal, below, _spread(blocks, where, sizes)


def _batch(blocks: Blocks) -> tuple[int, ...]:
    return np.broadcast_shapes(*(block.shape[:-2] for block in blocks.values()))


def _transposed(matrices: Float) -> Float:
    return matrices.swapaxes(-1, -2)


def _spread(blocks: Blocks, where: Grouping, sizes: tuple[int, ...]) -> list[Float]:
    """Return t_i = sum_j r_ij s_j / s_i, rounded up, group by group."""
    batch = _batch(blocks)
    totals = [np.zeros((*batch, size)) for size in sizes]
    sides = [_side(np.diagonal(blocks[k, k].mid, axis1=-2, axis2=-1)) for k in range(len(sizes))]
    for (i, j), block in blocks.items():
        if block.is_exact:
            continue
        rad = _symmetric(block)[1] if i == j else block.radius
        # r_ij s_i s_j: a radius that becomes subnormal is rounded up
        exponents = sides[i][..., :, None] + sides[j][..., None, :]
        scaled = np.where(rad > 0, np.ldexp(rad, exponents) + LEAST, 0.0)
        totals[i] += scaled.sum(axis=-1)
        if i != j:
            totals[j] += scaled.sum(axis=-2)
    spread = [np.zeros((*batch, width)) for width in where.widths]
    count = sum(sizes) + len(blocks)
    for k, (total, place) in enumerate(zip(totals, where.places(sizes), strict=True)):
        if total.any():
            spread[where.levels[k]][..., place] = np.nextafter(np.ldexp(inflate(total, count), -2 * sides[k]), np.inf)
    return spread


def _side(entries: Float) -> npt.NDArray[np.int64]:
    """Return exponents e with 2^e near entries^(-1/2); 0 for entries that are not positive, which `psd` refuses."""
    usable = np.where(np.isfinite(entries) & (entries > 0), entries, 1.0)
    return -(np.frexp(usable)[1].astype(np.int64) // 2)


def output_groups(blocks: Blocks, lifted: Lifted) -> list[Float]:
    """Return the centres of C's columns, group by group as in `group`."""
    where = grouping(blocks, lifted.sizes)
    rows = next(iter(lifted.output.values())).shape[0]
    columns = [np.zeros((rows, width)) for width in where.widths]
    places = where.places(lifted.sizes)
    for j, matrix in lifted.output.items():
        columns[where.levels[j]][:, places[j]] = matrix.mid
    return columns


def _symmetric(block: Enclosure) -> tuple[Float, Float]:
    """Return centre and radii of a diagonal block: as the true one is symmetric, the means enclose it too."""
    if block.rad is None:
        return block.mid, block.radius
    mid, rad = (0.5 * (part + _transposed(part)) for part in (block.mid, block.radius))
    return mid, round_up(rad + 2 * UNIT * np.abs(mid) + TINY, 4)


def _levels(count: int, blocks: Collection[tuple[int, int]]) -> list[int]:
    """Return each block's distance from the input in the graph of non-zero blocks: neighbours differ by at most 1."""
    levels = [0] + [-1] * (count - 1)
    frontier, distance = {0}, 0
    while frontier:
        distance += 1
        touched = {b for pair in blocks for a, b in (pair, pair[::-1]) if a in frontier and levels[b] < 0}
        for k in touched:
            levels[k] = distance
        frontier = touched
    return [max(level, 0) for level in levels]
