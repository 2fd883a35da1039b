"""The lifted system as the interior-point method sees it, and its matrix Z(lambda, F).

Block 0 is the input, block k >= 1 one activation layer; row i of R_k = (R_kj)_j is the r_i of neuron i, which reads
other blocks (the one before it in a chain, several in a residual network). With sigma_i = alpha_i + beta_i,
pi_i = alpha_i beta_i (math.md section 2):

    B_i = p_i q_i' + q_i p_i' = 2 e_i e_i' - sigma_i (e_i r_i' + r_i e_i') + 2 pi_i r_i r_i'         (1)
    Z(lambda, F) = E_x' E_x + sum_i lambda_i B_i - F C'C                                            (2)

Blocks of equal distance from the input in the graph of non-zero blocks of Z form a group (`proof.inequality`), so Z is
block tridiagonal over groups. With T_k = diag(lambda of block k), block k adds

    2 T_k at [k,k],   -sigma T_k R_kj at [k,j],   R_ki' 2 pi T_k R_kj at [i,j].                     (3)

The unknowns are kept in one vector y = (lambda, F) of N + 1 numbers, the neurons in the order of the groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from lipcert.bounds.lipsdp._clock import Clock
from lipcert.bounds.lipsdp._tridiag import Band
from lipcert.proof.inequality import Grouping, grouping
from lipcert.proof.lifted import Lifted

_OWN = 0.01
"""Weight of -log lambda_i where lambda_i >= 0 is a constraint of its own. It is hardly ever near: Z > 0 keeps lambda_i
away from zero but for what pi of its readers allows. With weight 1 these terms would be half of the barrier, and on
deep networks the centre would lie where gains grow by orders of magnitude."""

Row = dict[int, torch.Tensor]  # block -> matrix


@dataclass(frozen=True, eq=False)
class System:
    """Rows R_k of the blocks 1, 2, ..., the output C, and per block the slope bounds alpha <= beta."""

    sizes: tuple[int, ...]
    rows: list[Row]
    output: Row
    alpha: list[torch.Tensor]
    beta: list[torch.Tensor]
    where: Grouping
    clock: Clock

    @classmethod
    def of(cls, lifted: Lifted, clock: Clock, device: str) -> System:
        """The system at the centres of the lifted form's enclosures, float64 on a torch device."""

        def tensor(a: np.ndarray) -> torch.Tensor:
            return torch.tensor(a, dtype=torch.float64, device=device)

        rows = [{j: tensor(w.mid) for j, w in block.row.items()} for block in lifted.blocks]
        output = {j: tensor(c.mid) for j, c in lifted.output.items()}
        alpha = [tensor(block.alpha) for block in lifted.blocks]
        beta = [tensor(block.beta) for block in lifted.blocks]
        curved = [bool(((a != 0) & (b != 0)).any()) for a, b in zip(alpha, beta, strict=True)]
        return cls(lifted.sizes, rows, output, alpha, beta, _groups(lifted.sizes, rows, output, curved), clock)

    @cached_property
    def sigma(self) -> list[torch.Tensor]:
        """alpha + beta, per block."""
        return [a + b for a, b in zip(self.alpha, self.beta, strict=True)]

    @cached_property
    def pi(self) -> list[torch.Tensor | None]:
        """alpha * beta per block; None for a block where it vanishes altogether (slopes [0, 1])."""
        products = [a * b for a, b in zip(self.alpha, self.beta, strict=True)]
        return [p if bool((p != 0).any()) else None for p in products]

    @cached_property
    def signed(self) -> torch.Tensor:
        """Weights of -log lambda_i: `_OWN` where alpha beta > 0, as lambda >= 0 is then a constraint of its own."""
        return self.join([_OWN * (a * b > 0).to(a.dtype) for a, b in zip(self.alpha, self.beta, strict=True)])

    @cached_property
    def neurons(self) -> int:
        """N, the number of multipliers."""
        return sum(self.sizes[1:])

    @cached_property
    def degree(self) -> float:
        """nu: the order of Z plus the weights of the constraints lambda >= 0; the gap is nu mu on the path."""
        return float(sum(self.sizes)) + float(self.signed.sum())

    @cached_property
    def local(self) -> list[slice]:
        """Place of each block within its group."""
        return self.where.places(self.sizes)

    @cached_property
    def places(self) -> list[slice]:
        """Place of each block in Z."""
        starts = np.cumsum([0, *self.where.widths])
        offsets = [int(starts[level]) for level in self.where.levels]
        return [slice(o + p.start, o + p.stop) for o, p in zip(offsets, self.local, strict=True)]

    @cached_property
    def order(self) -> list[int]:
        """The blocks 1, 2, ... in the order in which they stand in Z."""
        return sorted(range(1, len(self.sizes)), key=lambda k: self.places[k].start)

    def of_neurons(self, k: int) -> slice:
        """Place of block k in y."""
        place, inputs = self.places[k], self.sizes[0]
        return slice(place.start - inputs, place.stop - inputs)

    def split(self, lam: torch.Tensor) -> list[torch.Tensor]:
        """A vector of N numbers in the order of y as one vector per block."""
        return [lam[self.of_neurons(k)] for k in range(1, len(self.sizes))]

    def join(self, parts: list[torch.Tensor]) -> torch.Tensor:
        """One vector per block as a vector of N numbers in the order of y."""
        return torch.cat([parts[k - 1] for k in self.order])

    def pairs(self, row: Row) -> Iterator[tuple[int, int, torch.Tensor, torch.Tensor]]:
        """The blocks i >= j that a row reads, with their matrices."""
        return ((i, j, a, b) for i, a in row.items() for j, b in row.items() if i >= j)

    def band(self, y: torch.Tensor, constant: float) -> Band:
        """The blocks (3) for y, with `constant` times E_x'E_x: 1 gives Z(y), 0 its linear part.

        N w^2 flops where alpha beta != 0, N w otherwise.
        """
        lam = self.split(y[:-1])
        out = Band.zeros(self.where.widths, y)
        out.diag[0].diagonal().add_(constant)
        for k, (row, t, sigma, pi) in enumerate(zip(self.rows, lam, self.sigma, self.pi, strict=True), start=1):
            self.part(out, k, k).diagonal().add_(2.0 * t)
            for j, w in row.items():
                self._add(out, k, j, (-sigma * t)[:, None] * w)
            if pi is not None:
                for i, j, a, b in self.pairs(row):
                    self._add(out, i, j, a.mT @ ((2.0 * pi * t)[:, None] * b))
        for i, j in self.gram:
            self._add(out, i, j, -y[-1] * self.gram[i, j])
        return out

    @cached_property
    def gram(self) -> dict[tuple[int, int], torch.Tensor]:
        """C_i'C_j for the blocks i >= j that the output reads."""
        return {(i, j): a.mT @ b for i, j, a, b in self.pairs(self.output)}

    def output_groups(self) -> list[torch.Tensor]:
        """C, group by group."""
        count = next(iter(self.output.values())).shape[0]
        groups = [self.alpha[0].new_zeros((count, width)) for width in self.where.widths]
        for j, c in self.output.items():
            groups[self.where.levels[j]][:, self.local[j]] = c
        return groups

    def part(self, band: Band, i: int, j: int) -> torch.Tensor:
        """Block [i,j] of a symmetric banded matrix; a view, so that it can be added to."""
        level, other = self.where.levels[i], self.where.levels[j]
        if level < other:
            return band.low[level][self.local[j], self.local[i]].mT
        whole = band.diag[level] if level == other else band.low[other]
        return whole[self.local[i], self.local[j]]

    def _add(self, band: Band, i: int, j: int, term: torch.Tensor) -> None:
        self.part(band, i, j).add_(term)
        if i != j and self.where.levels[i] == self.where.levels[j]:
            self.part(band, j, i).add_(term.mT)

    def rescaled(self, scale: list[torch.Tensor], last: float) -> System:
        """The same system in units v_k = scale_k u_k and y = u / last: a congruence of Z."""
        units = [torch.ones_like(scale[0][:1]), *scale]
        rows = [
            {j: w * units[j][None, :] / unit[:, None] for j, w in row.items()}
            for row, unit in zip(self.rows, scale, strict=True)
        ]
        output = {j: c * units[j][None, :] * last for j, c in self.output.items()}
        return System(self.sizes, rows, output, self.alpha, self.beta, self.where, self.clock)


def _groups(sizes: tuple[int, ...], rows: list[Row], output: Row, curved: list[bool]) -> Grouping:
    """The grouping of the blocks of Z."""
    pairs = {(k, j) for k, row in enumerate(rows, start=1) for j in row}
    for row, whole in [*zip(rows, curved, strict=True), (output, True)]:
        if whole:
            pairs.update((i, j) for i in row for j in row)
    return grouping(pairs, sizes)
