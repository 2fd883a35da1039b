r"""Verified l2 norms of dense matrices.

||X||_2 <= s  iff  s^2 I - X X' >= 0 (or X' X, whichever is smaller). The Gram matrix is computed in
float64; each of its entries is off by at most gamma_b (|X||X|')_ij + b TINY, b the length of the dot
products, so the row sums t = gamma_b |X|(|X|'1) + ... cover it in `is_psd`. The claim s is the witness;
nothing else is trusted.

Room: a claim passes when it exceeds the norm by about n^2 u plus gamma_b || |X| ||^2 / ||X||^2, relative to
s^2: some 1e-9 for n = 4096.
"""

from __future__ import annotations

import numpy as np

from lipcert.network.enclosure import TINY, Float, gamma
from lipcert.proof.psd import is_psd
from lipcert.proof.rounding import inflate, matmul_up, norms_up, product_down, total_up


def dense_at_most(matrix: Float, claim: float) -> bool:
    """Whether a matrix, or every one of a stack (..., a, b), is proved to have l2 norm at most `claim`.

    Entries are expected to be of order 1 (see `norms.scaling`). Cost: a^2 b + (2/3) a^3 flops, a <= b.
    """
    if claim < 0:
        return False
    if matrix.shape[-2] > matrix.shape[-1]:
        matrix = matrix.swapaxes(-1, -2)
    rows, terms = matrix.shape[-2:]
    if rows == 1:
        return bool((norms_up(matrix) <= claim).all())
    gram = matrix @ matrix.swapaxes(-1, -2)
    size = np.abs(matrix)
    columns = total_up(size, axis=-2)
    error = inflate(gamma(terms) * matmul_up(size, columns[..., None])[..., 0] + rows * terms * TINY, 2)
    return is_psd([shifted_gram(gram, product_down(claim, claim))], [], [error])


def shifted_gram(gram: Float, square: float) -> Float:
    """Return square I - gram, its diagonal rounded down; `gram` is used up."""
    np.negative(gram, out=gram)
    entries = np.arange(gram.shape[-1])
    gram[..., entries, entries] = np.nextafter(square + gram[..., entries, entries], -np.inf)
    return gram


def dense_flops(rows: int, columns: int) -> float:
    """Return the cost of `dense_at_most` for one matrix."""
    a, b = sorted((rows, columns))
    return float(a * a * b + 2 / 3 * a**3)
