"""The lifted system as the interior-point method sees it, and its matrix Z(lambda, F).

Row i of R_k = (R_kj)_j is the r_i of neuron i of group k >= 1 (`_groups`; group 0 is the input); it reads the groups
k - 1 and k, in graphs also k + 1. With sigma_i = alpha_i + beta_i, pi_i = alpha_i beta_i (math.md section 2):

    B_i = p_i q_i' + q_i p_i' = 2 e_i e_i' - sigma_i (e_i r_i' + r_i e_i') + 2 pi_i r_i r_i'         (1)
    Z(lambda, F) = E_x' E_x + sum_i lambda_i B_i - F C'C                                            (2)

Z is block tridiagonal over groups. With T_k = diag(lambda of group k), group k adds

    2 T_k at [k,k],   -sigma T_k R_kj at [k,j] and its transpose,   R_ki' 2 pi T_k R_kj at [i,j].    (3)

The unknowns are kept in one vector y = (lambda, F) of N + 1 numbers, the neurons in the order of the groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from lipcert.bounds.lipsdp._arrays import Array, array, diagonal_matrix, join, places_of, zeros
from lipcert.bounds.lipsdp._clock import Clock
from lipcert.bounds.lipsdp._groups import Groups, Matrices
from lipcert.bounds.lipsdp._tridiag import Band
from lipcert.network.enclosure import Float
from lipcert.proof.lifted import Lifted

_OWN = 0.01
"""Weight of -log lambda_i where lambda_i >= 0 is a constraint of its own. It is hardly ever near: Z > 0 keeps lambda_i
away from zero but for what pi of its readers allows. With weight 1 these terms would be half of the barrier, and on
deep networks the centre would lie where gains grow by orders of magnitude."""

Row = dict[int, Array]  # group -> matrix


@dataclass(frozen=True, eq=False)
class System:
    """Rows R_k of the groups 1, 2, ..., the output C, and per group the slope bounds alpha <= beta.

    Attributes:
        sizes: of the groups, the input first.
        places: where the neurons of each block of the lifted form stand among all, block by block.
    """

    sizes: tuple[int, ...]
    rows: list[Row]
    output: Row
    alpha: list[Array]
    beta: list[Array]
    places: list[slice]
    clock: Clock

    @classmethod
    def of(cls, lifted: Lifted, clock: Clock, device: str) -> System:
        """The system at the centres of the lifted form's enclosures, on a device (see `array`)."""
        made = Groups.of(lifted)

        def arrays(numbers: list[Float]) -> list[Array]:
            return [array(part, device) for part in numbers]

        def row(matrices: Matrices) -> Row:
            return {g: array(w, device) for g, w in matrices.items()}

        rows = [row(matrices) for matrices in made.rows]
        alpha, beta = arrays(made.alpha), arrays(made.beta)
        return cls(made.sizes, rows, row(made.output), alpha, beta, made.places, clock)

    @cached_property
    def crossing(self) -> list[Row]:
        """-sigma R_kj, per group."""
        return [
            {j: -(a + b)[:, None] * w for j, w in row.items()}
            for row, a, b in zip(self.rows, self.alpha, self.beta, strict=True)
        ]

    @cached_property
    def pi(self) -> list[Array | None]:
        """alpha * beta per group; None for a group where it vanishes altogether (slopes [0, 1])."""
        products = [a * b for a, b in zip(self.alpha, self.beta, strict=True)]
        return [p if bool((p != 0).any()) else None for p in products]

    @cached_property
    def signed(self) -> Array:
        """Weights of -log lambda_i: `_OWN` where alpha beta > 0, as lambda >= 0 is then a constraint of its own."""
        return join([_OWN * (a * b > 0) for a, b in zip(self.alpha, self.beta, strict=True)])

    @cached_property
    def own(self) -> Array:
        """The neurons with such a constraint."""
        return places_of(self.signed)

    @cached_property
    def neurons(self) -> int:
        """N, the number of multipliers."""
        return sum(self.sizes[1:])

    @cached_property
    def degree(self) -> float:
        """nu: the order of Z plus the weights of the constraints lambda >= 0; the gap is nu mu on the path."""
        return float(sum(self.sizes)) + float(self.signed.sum())

    @cached_property
    def in_matrix(self) -> list[slice]:
        """Place of each group in Z."""
        ends = np.cumsum(self.sizes).tolist()
        return [slice(end - size, end) for size, end in zip(self.sizes, ends, strict=True)]

    @cached_property
    def in_vector(self) -> list[slice]:
        """Place in y of the groups 1, 2, ..."""
        inputs = self.sizes[0]
        return [slice(place.start - inputs, place.stop - inputs) for place in self.in_matrix[1:]]

    def split(self, lam: Array) -> list[Array]:
        """A vector of N numbers in the order of y as one vector per block of the lifted form."""
        return [lam[place] for place in self.places]

    def join(self, parts: list[Array]) -> Array:
        """One vector per block of the lifted form as a vector of N numbers in the order of y."""
        return join([parts[b] for b in sorted(range(len(parts)), key=lambda b: self.places[b].start)])

    def pairs(self, row: Row) -> Iterator[tuple[int, int, Array, Array]]:
        """The groups i >= j that a row reads, with their matrices; no neuron reads two that are not neighbours."""
        return ((i, j, a, b) for i, a in row.items() for j, b in row.items() if 0 <= i - j <= 1)

    def band(self, y: Array, constant: float) -> Band:
        """The blocks (3) for y, with `constant` times E_x'E_x: 1 gives Z(y), 0 its linear part.

        N w^2 flops where alpha beta != 0, N w otherwise.
        """
        blocks: dict[tuple[int, int], Array] = {(0, 0): constant * self.identity}

        def add(i: int, j: int, term: Array) -> None:
            i, j, term = (i, j, term) if i >= j else (j, i, term.T)
            blocks[i, j] = blocks[i, j] + term if (i, j) in blocks else term

        for k, (row, pi, place) in enumerate(zip(self.rows, self.pi, self.in_vector, strict=True), start=1):
            t = y[place]
            add(k, k, diagonal_matrix(2.0 * t))
            for j, w in self.crossing[k - 1].items():
                term = t[:, None] * w
                add(k, j, term if j != k else term + term.T)
            if pi is not None:
                for i, j, a, b in self.pairs(row):
                    add(i, j, a.T @ ((2.0 * pi * t)[:, None] * b))
        for (i, j), gram in self.gram.items():
            add(i, j, -y[-1] * gram)
        last = len(self.sizes) - 1
        low = [blocks[k + 1, k] if (k + 1, k) in blocks else self._zeros(k + 1, k) for k in range(last)]
        return Band([blocks[k, k] for k in range(last + 1)], low)

    def _zeros(self, i: int, j: int) -> Array:
        return zeros((self.sizes[i], self.sizes[j]), self.alpha[0])

    def ones(self, size: int) -> Array:
        """A vector of ones."""
        return zeros((size,), self.alpha[0]) + 1.0

    @cached_property
    def identity(self) -> Array:
        """E_x E_x'."""
        return diagonal_matrix(self.ones(self.sizes[0]))

    @cached_property
    def corner(self) -> bool:
        """Whether any multiplier meets the block [0,0] of Z."""
        curved = any(0 in row for row, pi in zip(self.rows, self.pi, strict=True) if pi is not None)
        return curved or (0, 0) in self.gram

    @cached_property
    def gram(self) -> dict[tuple[int, int], Array]:
        """C_i'C_j for the groups i >= j that the output reads."""
        return {(i, j): a.T @ b for i, j, a, b in self.pairs(self.output)}

    def output_groups(self) -> list[Array]:
        """C, group by group."""
        count = next(iter(self.output.values())).shape[0]
        like = self.alpha[0]
        return [self.output[k] if k in self.output else zeros((count, n), like) for k, n in enumerate(self.sizes)]

    def part(self, band: Band, i: int, j: int) -> Array:
        """Block [i,j] of a symmetric banded matrix."""
        if i < j:
            return band.low[i].T
        return band.diag[i] if i == j else band.low[j]

    def rescaled(self, scale: list[Array], last: float) -> System:
        """The same system in units v_k = scale_k u_k, block by block, and y = u / last: a congruence of Z."""
        whole = self.join(scale)
        units = [self.ones(1), *(whole[place] for place in self.in_vector)]
        rows = [
            {j: w * units[j][None, :] / unit[:, None] for j, w in row.items()}
            for row, unit in zip(self.rows, units[1:], strict=True)
        ]
        output = {j: c * units[j][None, :] * last for j, c in self.output.items()}
        return replace(self, rows=rows, output=output)
