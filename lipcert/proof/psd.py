r"""Verified positive semidefiniteness of symmetric block-tridiagonal matrices.

Theorem. Let A be symmetric, c >= 0 a vector, L any real matrix. If every row i obeys

    sum_j |(A - diag(c) - L L')_ij|  <=  c_i - t_i                                                        (1)

then A + D >= 0 for every symmetric D with |x'Dx| <= sum_i t_i x_i^2. Proof: with E the matrix in (1),
A + D = L L' + (E + diag(c - t)) + (diag(t) + D). The second term is diagonally dominant with a non-negative
diagonal, so it is >= 0 (Gershgorin); so are the third, and L L' always.

Nothing is assumed of L: it comes from floating-point Cholesky, and (1) is checked with every rounding error
counted. The matrices are first scaled by powers of two, S A S, which is exact, so that the diagonal lies in
[1/4, 1): rows of very different size do not spoil each other, and no epsilon here is absolute.

Rounding in (1). Let T = fl(L L'), g = gamma_{m+1} with m the largest number of terms in its dot products. Then
|T - L L'| <= g |L||L'| + m TINY in any order of summation, fused or not, and one subtraction gives
|A - diag(c) - T| <= |fl(A - diag(c) - T)| (1 + 2u). Diagonals are rounded down by nextafter, so the true shift is
at least c_i.

Choice of c (not trusted). In exact arithmetic (|L||L'|)_ij <= sqrt(a_i a_j). So c_i = t_i + 1.5 gamma_{m+8} sqrt(a_i)
sum_j sqrt(a_j) over the band, and 64 u t_i for the sums in (1), suffice in practice: a shift of about n^2 u
relative to the diagonal.

Source: Rump 2006, "Verification of positive definiteness" (BIT 46), here in residual form and by Gershgorin.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from lipcert.network.enclosure import TINY, UNIT, Float, gamma
from lipcert.proof.refusal import Refused
from lipcert.proof.rounding import inflate, matmul_up, total_up
from lipcert.proof.triangular import gram_lower, solve_lower, times_lower

Blocks = list[Float]


def is_psd(diagonal: Sequence[Float], below: Sequence[Float], error: float | Sequence[Float] = 0.0) -> bool:
    """Whether a block-tridiagonal matrix and all those within `error` of it are proved positive semidefinite.

    Args:
        diagonal: blocks A_kk, each (..., n_k, n_k); only the lower triangles are read. Leading axes are a
            batch, the same for all blocks: all its matrices must pass.
        below: blocks A_{k+1,k}, each (..., n_{k+1}, n_k); one fewer than `diagonal`, empty for a dense matrix.
        error: t_i of the module's theorem. A number t covers every symmetric difference D with spectral norm
            at most t. One (..., n_k) array per block covers D with row sums sum_j |D_ij| <= t_i, and more
            generally |x'Dx| <= sum_i t_i x_i^2.

    Returns:
        True only if it is proved (level ``verified``); False if not, also where NaN, infinity or a diagonal
        entry that is not positive is met. A singular matrix is never accepted, as the shift needs room.

    Cost: about 4 sum_k n_k^3 flops; (2/3) n^3 for a dense matrix.
    """
    given = [np.asarray(block, dtype=np.float64) for block in diagonal]
    links = [np.asarray(block, dtype=np.float64) for block in below]
    _check_shapes(given, links)
    errors = [error] * len(given) if isinstance(error, (int, float)) else list(error)
    spread = [np.asarray(t, dtype=np.float64) for t in errors]
    with np.errstate(all="ignore"):
        try:
            return _proved(*_scaled(given, links, spread))
        except (Refused, np.linalg.LinAlgError):
            return False


def _check_shapes(diagonal: Blocks, below: Blocks) -> None:
    sizes = [block.shape[-1] for block in diagonal]
    expected = [(m, n) for n, m in pairwise(sizes)]
    if not diagonal or [b.shape[-2:] for b in diagonal] != [(n, n) for n in sizes]:
        raise ValueError("the diagonal blocks are square, and there is at least one")
    if [b.shape[-2:] for b in below] != expected:
        raise ValueError(f"the blocks below the diagonal have shapes {expected}")


def _scaled(diagonal: Blocks, below: Blocks, spread: Blocks) -> tuple[Blocks, Blocks, Blocks]:
    """Scale rows and columns by powers of two; radii that underflow are rounded up.

    An entry that becomes subnormal is off by at most 2^-1074; `_proved` counts `TINY` per entry for it.
    """
    sides = []
    for block in diagonal:
        entries = np.diagonal(block, axis1=-2, axis2=-1)
        if not (np.isfinite(entries).all() and (entries > 0).all()):
            raise Refused("a diagonal entry is not positive")
        sides.append(-((np.frexp(entries)[1] + 1) // 2))
    scaled = []
    for block, side in zip(diagonal, sides, strict=True):
        lower = np.ldexp(np.tril(block), side[..., :, None] + side[..., None, :])
        scaled.append(lower + np.tril(lower, -1).swapaxes(-1, -2))
    links = [
        np.ldexp(block, after[..., :, None] + before[..., None, :])
        for block, before, after in zip(below, sides[:-1], sides[1:], strict=True)
    ]
    radii = []
    for t, side in zip(spread, sides, strict=True):
        if not (np.isfinite(t).all() and (t >= 0).all()):
            raise Refused("an error bound is not a non-negative number")
        radii.append(np.where(t > 0, np.nextafter(np.ldexp(t, 2 * side), np.inf), 0.0))
    return scaled, links, radii


def _proved(diagonal: Blocks, below: Blocks, spread: Blocks) -> bool:
    """Shift, factorise, and check (1)."""
    sizes = [block.shape[-1] for block in diagonal]
    terms = max(a + b for a, b in zip(sizes, [0, *sizes[:-1]], strict=True))
    roots = [np.sqrt(np.diagonal(block, axis1=-2, axis2=-1)) for block in diagonal]
    mass = [root.sum(axis=-1, keepdims=True) for root in roots]
    shifts, shifted = [], []
    for k, block in enumerate(diagonal):
        band = np.sum(mass[max(0, k - 1) : k + 2], axis=0)
        shift = spread[k] * (1 + 64 * UNIT) + 1.5 * gamma(terms + 8) * roots[k] * band
        entries = np.arange(sizes[k])
        block = block.copy()
        block[..., entries, entries] = np.nextafter(block[..., entries, entries] - shift, -np.inf)
        shifts.append(shift)
        shifted.append(block)
    rows, factors, links = _factorise(shifted, below)
    rounding = _magnitudes(factors, links)
    for row, size, t, shift in zip(rows, rounding, spread, shifts, strict=True):
        tiny = 3 * (terms + 1) * max(sizes) * TINY  # underflow in products and in the scaling, three blocks a row
        bound = inflate(row * (1 + 2 * UNIT) + gamma(terms + 1) * size + t + tiny, 6)
        if not (bound <= shift).all():
            return False
    return True


def _factorise(diagonal: Blocks, below: Blocks) -> tuple[Blocks, Blocks, Blocks]:
    """Return row sums of |A - T|, rounded up, and the blocks of L: diagonal L_k and G_k below it.

    T_kk = L_k L_k' + G_{k-1} G_{k-1}', T_{k+1,k} = G_k L_k'. The products that factorisation needs anyway
    are used.
    """
    rows: Blocks = []
    factors: Blocks = []
    links: Blocks = []
    carried: Float | None = None
    for k, block in enumerate(diagonal):
        root = np.asarray(np.linalg.cholesky(block if carried is None else block - carried), dtype=np.float64)
        product = gram_lower(root) if carried is None else gram_lower(root) + carried
        rows.append(total_up(np.abs(block - product)))
        factors.append(root)
        if k == 0 and not below:
            break
        if k > 0:
            crossing = np.abs(below[k - 1] - times_lower(links[-1], factors[-2]))
            rows[k] = inflate(rows[k] + total_up(crossing), 1)
            rows[k - 1] = inflate(rows[k - 1] + total_up(crossing, axis=-2), 1)
        if k < len(below):
            link = solve_lower(root, below[k].swapaxes(-1, -2)).swapaxes(-1, -2)
            carried = link @ link.swapaxes(-1, -2)
            links.append(link)
    return rows, factors, links


def _magnitudes(factors: Blocks, links: Blocks) -> Blocks:
    """Return upper bounds of the row sums of |L||L'| by matrix-vector products."""
    columns = [total_up(np.abs(root), axis=-2) for root in factors]
    for k, link in enumerate(links):
        columns[k] = inflate(columns[k] + total_up(np.abs(link), axis=-2), 1)
    rows = [matmul_up(np.abs(root), column[..., None])[..., 0] for root, column in zip(factors, columns, strict=True)]
    for k, link in enumerate(links):
        extra = matmul_up(np.abs(link), columns[k][..., None])[..., 0]
        rows[k + 1] = inflate(rows[k + 1] + extra, 1)
    return rows
