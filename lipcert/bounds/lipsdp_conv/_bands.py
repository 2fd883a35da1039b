"""Stacks of Hermitian block-tridiagonal matrices: Cholesky factor, band of the inverse, whole inverse.

The same elimination as in `lipsdp`, with a leading axis and complex numbers. Z has diagonal blocks A_k and O_k below
them; the pivots are M_0 = A_0, M_k = A_k - O_k M_{k-1}^-1 O_k*, and with J_k = O_k M_{k-1}^-1 the inverse V has

    V[l,l] = M_l^-1,   V[i,k-1] = -V[i,k] J_k (i >= k),   V[k-1,k-1] = M_{k-1}^-1 + J_k* V[k,k] J_k
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

Blocks = list[torch.Tensor]


@dataclass(frozen=True)
class Factor:
    """Cholesky factors of the pivots, and G_k = O_k R_{k-1}^-* where M = R R*."""

    pivots: Blocks
    links: Blocks


def factorise(diagonal: Blocks, below: Blocks) -> Factor | None:
    """Return the factors of stacks (count, n, n), or None where one matrix is not positive definite or not finite."""
    pivots: Blocks = []
    links: Blocks = []
    for k, block in enumerate(diagonal):
        if k > 0:
            link = torch.linalg.solve_triangular(pivots[-1], below[k - 1].mH, upper=False).mH
            links.append(link)
            block = block - link @ link.mH
        root, info = torch.linalg.cholesky_ex(block)
        if bool((info != 0).any()):
            return None
        pivots.append(root)
    return Factor(pivots, links) if bool(torch.isfinite(pivots[-1]).all()) else None


def feasible(diagonal: Blocks, below: Blocks) -> torch.Tensor:
    """Return for each matrix of the stacks whether it is numerically positive definite, (count,)."""
    good = torch.ones(len(diagonal[0]), dtype=torch.bool)
    root = diagonal[0]
    for k, block in enumerate(diagonal):
        if k > 0:
            link = torch.linalg.solve_triangular(root, below[k - 1].mH, upper=False).mH
            block = block - link @ link.mH
        root, info = torch.linalg.cholesky_ex(block)
        good &= (info == 0) & torch.isfinite(root).all(-1).all(-1)
    return good


def _gain(factor: Factor, k: int) -> torch.Tensor:
    """J_{k+1} = G R^-1."""
    gain: torch.Tensor = torch.linalg.solve_triangular(factor.pivots[k], factor.links[k], upper=False, left=False)
    return gain


def inverse_band(factor: Factor) -> tuple[Blocks, Blocks]:
    """Return the blocks of V on the diagonal and below it."""
    v = torch.cholesky_inverse(factor.pivots[-1])
    diagonal, below = [v], []
    for k in range(len(factor.links) - 1, -1, -1):
        gain = _gain(factor, k)
        link = -(v @ gain)
        v = torch.cholesky_inverse(factor.pivots[k]) - gain.mH @ link
        diagonal.append(v)
        below.append(link)
    return diagonal[::-1], below[::-1]


def inverse_dense(factor: Factor) -> torch.Tensor:
    """Return all of V, (count, n, n)."""
    sizes = [root.shape[-1] for root in factor.pivots]
    n = sum(sizes)
    first = factor.pivots[0]
    v = torch.empty((len(first), n, n), dtype=first.dtype)
    end = n
    for k in range(len(sizes) - 1, -1, -1):
        here = slice(end - sizes[k], end)
        corner = torch.cholesky_inverse(factor.pivots[k])
        if k < len(sizes) - 1:
            after, following = slice(end, n), slice(end, end + sizes[k + 1])
            gain = _gain(factor, k)
            v[:, after, here] = -(v[:, after, following] @ gain)
            v[:, here, after] = v[:, after, here].mH
            corner = corner - gain.mH @ v[:, following, here]
        v[:, here, here] = corner
        end = here.start
    return v
