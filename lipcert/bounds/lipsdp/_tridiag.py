"""Symmetric block-tridiagonal matrices: Cholesky factor, band of the inverse, whole inverse.

Z has diagonal blocks A_0..A_l (A_k is n_k x n_k) and blocks O_k = Z[k, k-1] below the diagonal.
Eliminating forwards gives the pivots

    M_0 = A_0,   M_k = A_k - O_k M_{k-1}^-1 O_k'                                              (1)

and Z = U M U' with U block bidiagonal, so with J_k = O_k M_{k-1}^-1 the inverse V = Z^-1 obeys

    V[l,l] = M_l^-1,   V[i,k-1] = -V[i,k] J_k (i >= k),   V[k-1,k-1] = M_{k-1}^-1 + J_k' V[k,k] J_k    (2)

Costs, for equal widths w and N = l w: (1) (7/3) N w^2 flops, the band of (2) 6 N w^2, all of (2) N^2 w.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

Blocks = list[torch.Tensor]


@dataclass(frozen=True)
class Band:
    """The blocks on and just below the diagonal; `low[k]` is block (k+1, k)."""

    diag: Blocks
    low: Blocks

    @classmethod
    def zeros(cls, widths: Sequence[int], like: torch.Tensor) -> Band:
        """The zero matrix with diagonal blocks of these widths."""
        return cls([like.new_zeros((n, n)) for n in widths], [like.new_zeros((m, n)) for n, m in pairwise(widths)])

    def plus(self, step: float, other: Band) -> Band:
        """This matrix plus `step` times another of the same shape."""
        return Band(
            [a + step * b for a, b in zip(self.diag, other.diag, strict=True)],
            [a + step * b for a, b in zip(self.low, other.low, strict=True)],
        )


@dataclass(frozen=True)
class Factor:
    """Cholesky factors of the pivots (1), and G_k = O_k R_{k-1}^-T where M = R R'."""

    pivots: Blocks
    links: Blocks

    def logdet(self) -> float:
        """Log determinant of Z."""
        return 2.0 * float(sum(r.diagonal().log().sum() for r in self.pivots))

    def half(self, rows: Blocks) -> torch.Tensor:
        """L^-1 C' for Z = L L' and C = (C_0, ..., C_l): its squared norm is that of C Z^-1 C'. O(m N w)."""
        solved: Blocks = []
        for k, (root, part) in enumerate(zip(self.pivots, rows, strict=True)):
            rest = part.mT - self.links[k - 1] @ solved[-1] if k > 0 else part.mT
            solved.append(torch.linalg.solve_triangular(root, rest, upper=False))
        return torch.cat(solved)


def factorise(z: Band) -> Factor | None:
    """Block Cholesky (1); None where Z is not positive definite (or not finite)."""
    pivots: Blocks = []
    links: Blocks = []
    failures: list[torch.Tensor] = []
    for k, a in enumerate(z.diag):
        if k > 0:
            link = torch.linalg.solve_triangular(pivots[-1], z.low[k - 1].mT, upper=False).mT
            links.append(link)
            a = torch.addmm(a, link, link.mT, alpha=-1.0)
        root, info = torch.linalg.cholesky_ex(a)
        if not root.is_cuda and int(info) != 0:
            return None
        failures.append(info)
        pivots.append(root)
    # On a GPU one look at the end avoids a synchronisation per block.
    if bool((torch.stack(failures) != 0).any()) or not bool(torch.isfinite(pivots[-1]).all()):
        return None
    return Factor(pivots, links)


def _gains(factor: Factor) -> Blocks:
    """J_k = O_k M_{k-1}^-1 = G_k R_{k-1}^-1."""
    return [
        torch.linalg.solve_triangular(root, link, upper=False, left=False)
        for root, link in zip(factor.pivots[:-1], factor.links, strict=True)
    ]


def inverse_band(factor: Factor, corner: bool = True) -> Band:
    """The blocks of V = Z^-1 on and just below the diagonal, by (2); without V[0,0] (left empty) if so asked."""
    v = torch.cholesky_inverse(factor.pivots[-1])
    diag, low = [v], []
    for k, gain in reversed(list(enumerate(_gains(factor)))):
        below = -(v @ gain)
        if k > 0 or corner:
            v = torch.addmm(torch.cholesky_inverse(factor.pivots[k]), gain.mT, below, alpha=-1.0)
        else:
            v = v.new_empty((0, 0))
        diag.append(v)
        low.append(below)
    return Band(diag[::-1], low[::-1])


def inverse_dense(factor: Factor) -> torch.Tensor:
    """All of V = Z^-1 as a dense symmetric n x n matrix, by (2): n^2 w flops, n^2 numbers."""
    sizes = [r.shape[0] for r in factor.pivots]
    n = sum(sizes)
    v = torch.empty((n, n), dtype=factor.pivots[0].dtype, device=factor.pivots[0].device)
    end = n
    for k in range(len(sizes) - 1, -1, -1):
        here = slice(end - sizes[k], end)
        corner = torch.cholesky_inverse(factor.pivots[k])
        if k < len(sizes) - 1:
            after, following = slice(end, n), slice(end, end + sizes[k + 1])
            gain = torch.linalg.solve_triangular(factor.pivots[k], factor.links[k], upper=False, left=False)
            torch.matmul(v[after, following], gain.neg(), out=v[after, here])
            v[here, after] = v[after, here].mT
            corner = corner - gain.mT @ v[following, here]
        v[here, here] = corner
        end = here.start
    return v
