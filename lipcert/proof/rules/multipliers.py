r"""The multiplier rule: LipSDP in neuron form, over any graph of affine operators and elementwise activations.

Theorem. Let xi = (x, v_1, ..., v_K) be the lifted form (`proof.lifted`), Lambda_k >= 0 diagonal and F > 0. If

    Z = E_x' E_x + sum_k 2 [ Lambda_k on (k,k)  -  sym( E_k' Lambda_k (alpha_k + beta_k)/1 R_k )
                             + R_k' Lambda_k alpha_k beta_k R_k ] - F C'C   >=   0

then ||y - y'|| <= F^(-1/2) ||x - x'||.

Proof. For two inputs, write d for differences. Every neuron has a slope s in [alpha, beta] with dv = s dz, so
(dv - alpha dz)(dv - beta dz) <= 0, that is 2 lambda (dv^2 - (alpha + beta) dv dz + alpha beta dz^2) <= 0. The
quadratic form of Z at d xi is |dx|^2 plus these terms minus F |dy|^2. It is >= 0, and the terms are <= 0, so
|dx|^2 >= F |dy|^2.

With B_k = p q' + q p', p = e - alpha r, q = e - beta r, this is Z of `LipSDP` (Fazlyab et al. 2019, Theorem 2;
with the single-neuron multipliers that Pauli et al. 2021 showed to be the sound ones). Products of norms,
Gershgorin and AOL scalings, ECLipsE and LipSDP are all choices of Lambda.

Assembly. Every entry of Z is computed in `Enclosure` arithmetic, so Z is known up to entrywise radii; the radii's
row sums bound the spectral norm of the difference (symmetric matrices), which `psd` subtracts. Blocks are grouped
by their distance from the input, which makes Z block tridiagonal: for a chain one group per layer, for a residual
network one per residual block. Cost: sum over groups of n_g^3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lipcert.network.enclosure import UNIT, Enclosure, Float
from lipcert.network.graph import Network
from lipcert.proof.certificate import Witness
from lipcert.proof.claims import Norm
from lipcert.proof.lifted import Lifted, lift
from lipcert.proof.psd import is_psd
from lipcert.proof.refusal import Refused
from lipcert.proof.rounding import inflate, quotient_up, sqrt_up
from lipcert.proof.rules.base import Derivation, Rule

Blocks = dict[tuple[int, int], Enclosure]  # lower triangle: (row block, column block), row >= column


class Multipliers(Rule):
    """One non-negative multiplier per neuron.

    Witness arrays: ``multipliers`` (N,) float64, all neurons of the normal form in node order; ``inverse_square``
    (1,) float64, the F > 0 for which the inequality is to be proved.
    """

    id: ClassVar[str] = "multipliers/v1"
    norms: ClassVar[frozenset[Norm]] = frozenset({"l2"})

    def derive(self, network: Network, norm: Norm, witness: Witness) -> Derivation:
        """Derive F^(-1/2), rounded up, if the matrix inequality can be proved at F."""
        if norm != "l2":
            raise Refused(f"the multiplier rule is for l2, not {norm}")
        lifted = lift(network)
        multipliers, target = _read(lifted, witness)
        if not proves(lifted, multipliers, target):
            raise Refused("the matrix inequality cannot be proved with these multipliers")
        return Derivation(sqrt_up(quotient_up(1.0, target)))


def _read(lifted: Lifted, witness: Witness) -> tuple[list[Float], float]:
    if set(witness) != {"multipliers", "inverse_square"}:
        raise Refused("the witness has the arrays 'multipliers' and 'inverse_square'")
    values, target = np.asarray(witness["multipliers"]), np.asarray(witness["inverse_square"])
    sizes = lifted.sizes[1:]
    if (
        values.dtype.kind != "f"
        or values.shape != (sum(sizes),)
        or target.dtype.kind != "f"
        or target.shape != (1,)
    ):
        raise Refused(f"the network needs {sum(sizes)} multipliers and one inverse square")
    if not (np.isfinite(values).all() and (values >= 0).all() and np.isfinite(target[0]) and target[0] > 0):
        raise Refused("multipliers are finite and not negative, the inverse square is positive")
    return np.split(values, np.cumsum(sizes)[:-1]), float(target[0])


def proves(lifted: Lifted, multipliers: list[Float], target: float) -> bool:
    """Whether Z(multipliers, target) >= 0 can be proved, every rounding error counted."""
    blocks = assemble(lifted, multipliers)
    add_output(blocks, lifted, target)
    return is_psd(*group(blocks, lifted))


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
            if (block.alpha * block.beta).any():
                for i, other in block.row.items():
                    if i >= j:
                        _add(blocks, i, j, other.map(np.transpose) @ (curved * matrix))
    return blocks


def add_output(blocks: Blocks, lifted: Lifted, target: float) -> None:
    """Add -F C'C in place."""
    scale = Enclosure.exact(-target)
    for j, matrix in lifted.output.items():
        for i, other in lifted.output.items():
            if i >= j:
                _add(blocks, i, j, scale * (other.map(np.transpose) @ matrix))


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


def grouping(blocks: Blocks, sizes: tuple[int, ...]) -> Grouping:
    """Group the blocks by their distance from the input in the graph of non-zero blocks: Z is block tridiagonal."""
    levels = _levels(len(sizes), blocks)
    widths = [0] * (max(levels) + 1)
    start = []
    for size, level in zip(sizes, levels, strict=True):
        start.append(widths[level])
        widths[level] += size
    return Grouping(tuple(levels), tuple(start), tuple(widths))


def group(blocks: Blocks, lifted: Lifted) -> tuple[list[Float], list[Float], list[Float]]:
    """Return Z as block tridiagonal: diagonal groups, groups below the diagonal, row sums of all radii per group."""
    sizes = lifted.sizes
    where = grouping(blocks, sizes)
    levels, start, widths = where.levels, where.start, where.widths
    diagonal = [np.zeros((n, n)) for n in widths]
    below = [np.zeros((m, n)) for n, m in zip(widths[:-1], widths[1:], strict=True)]
    radii = [np.zeros(n) for n in widths]
    for (i, j), block in blocks.items():
        rows, columns = (slice(start[k], start[k] + sizes[k]) for k in (i, j))
        centre, rad = _symmetric(block) if i == j else (block.mid, block.radius)
        if levels[i] != levels[j]:
            upper, lower = (i, j) if levels[i] < levels[j] else (j, i)
            target, turned = below[levels[upper]], lower == j
            target[(columns, rows) if turned else (rows, columns)] = centre.T if turned else centre
        else:
            diagonal[levels[i]][rows, columns] = centre
            diagonal[levels[i]][columns, rows] = centre.T
        radii[levels[i]][rows] += rad.sum(axis=1)
        if i != j:
            radii[levels[j]][columns] += rad.sum(axis=0)
    count = sum(sizes) + len(blocks)
    return diagonal, below, [inflate(row, count) if row.any() else row for row in radii]


def output_groups(blocks: Blocks, lifted: Lifted) -> list[Float]:
    """Return the centres of C's columns, group by group as in `group`."""
    where = grouping(blocks, lifted.sizes)
    rows = next(iter(lifted.output.values())).shape[0]
    columns = [np.zeros((rows, width)) for width in where.widths]
    for j, matrix in lifted.output.items():
        columns[where.levels[j]][:, where.start[j] : where.start[j] + lifted.sizes[j]] = matrix.mid
    return columns


def _symmetric(block: Enclosure) -> tuple[Float, Float]:
    """Return centre and radii of a diagonal block: as the true one is symmetric, the means enclose it too."""
    if block.rad is None:
        return block.mid, block.radius
    mid, rad = 0.5 * (block.mid + block.mid.T), 0.5 * (block.radius + block.radius.T)
    return mid, np.nextafter(rad * (1 + 4 * UNIT) + 2 * UNIT * np.abs(mid), np.inf)


def _levels(count: int, blocks: Blocks) -> list[int]:
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
