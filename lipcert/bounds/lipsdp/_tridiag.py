"""Symmetric block-tridiagonal matrices: Cholesky factor, band of the inverse, whole inverse.

Z has diagonal blocks A_0..A_l (A_k is n_k x n_k) and blocks O_k = Z[k, k-1] below the diagonal.
Eliminating forwards gives the pivots

    M_0 = A_0,   M_k = A_k - O_k M_{k-1}^-1 O_k'                                              (1)

and Z = U M U' with U block bidiagonal, so with J_k = O_k M_{k-1}^-1 the inverse V = Z^-1 obeys

    V[l,l] = M_l^-1,   V[i,k-1] = -V[i,k] J_k (i >= k),   V[k-1,k-1] = M_{k-1}^-1 + J_k' V[k,k] J_k    (2)

Costs, for equal widths w and N = l w: (1) (7/3) N w^2 flops, the band of (2) 6 N w^2, all of (2) N^2 w.
"""

from __future__ import annotations

from dataclasses import dataclass

from lipcert.bounds.lipsdp._arrays import (
    Array,
    all_seen,
    cholesky,
    empty,
    inverse,
    join,
    product_into,
    solve_lower,
    solve_upper,
)

Blocks = list[Array]


@dataclass(frozen=True)
class Band:
    """The blocks on and just below the diagonal; `low[k]` is block (k+1, k)."""

    diag: Blocks
    low: Blocks

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

    def half(self, rows: Blocks) -> Array:
        """L^-1 C' for Z = L L' and C = (C_0, ..., C_l): its squared norm is that of C Z^-1 C'. O(m N w)."""
        solved: Blocks = []
        for k, (root, part) in enumerate(zip(self.pivots, rows, strict=True)):
            rest = part.T - self.links[k - 1] @ solved[-1] if k > 0 else part.T
            solved.append(solve_lower(root, rest))
        return join(solved)

    def back(self, right: Array) -> Blocks:
        """L'^-1 B, block by block."""
        solved: Blocks = []
        end = len(right)
        for k in range(len(self.pivots) - 1, -1, -1):
            start = end - len(self.pivots[k])
            rest = right[start:end]
            if solved:
                rest = rest - self.links[k].T @ solved[-1]
            solved.append(solve_upper(self.pivots[k], rest))
            end = start
        return solved[::-1]


def factorise(z: Band) -> Factor | None:
    """Block Cholesky (1); None where Z is not positive definite (or not finite)."""
    pivots: Blocks = []
    links: Blocks = []
    for k, a in enumerate(z.diag):
        if k > 0:
            link = solve_lower(pivots[-1], z.low[k - 1].T).T
            links.append(link)
            a = a - link @ link.T
        root = cholesky(a)
        if root is None:
            return None
        pivots.append(root)
    return Factor(pivots, links) if all_seen(pivots) else None


def _gain(root: Array, link: Array) -> Array:
    """J_k = O_k M_{k-1}^-1 = G_k R_{k-1}^-1."""
    return solve_upper(root, link.T).T


def inverse_band(factor: Factor, corner: bool = True) -> Band:
    """The blocks of V = Z^-1 on and just below the diagonal, by (2); without V[0,0] (left empty) if so asked."""
    v = inverse(factor.pivots[-1])
    diag, low = [v], []
    for k in range(len(factor.links) - 1, -1, -1):
        gain = _gain(factor.pivots[k], factor.links[k])
        below = -(v @ gain)
        v = inverse(factor.pivots[k]) - gain.T @ below if k > 0 or corner else empty((0, 0), v)
        diag.append(v)
        low.append(below)
    return Band(diag[::-1], low[::-1])


def inverse_dense(factor: Factor) -> Array:
    """All of V = Z^-1 as a dense symmetric n x n matrix, by (2): n^2 w flops, n^2 numbers."""
    sizes = [len(r) for r in factor.pivots]
    n = sum(sizes)
    v = empty((n, n), factor.pivots[0])
    end = n
    for k in range(len(sizes) - 1, -1, -1):
        here = slice(end - sizes[k], end)
        corner = inverse(factor.pivots[k])
        if k < len(sizes) - 1:
            after, following = slice(end, n), slice(end, end + sizes[k + 1])
            gain = _gain(factor.pivots[k], factor.links[k])
            product_into(v[after, following], -gain, v[after, here])
            v[here, after] = v[after, here].T
            corner = corner - gain.T @ v[following, here]
        v[here, here] = corner
        end = here.start
    return v
