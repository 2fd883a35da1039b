r"""Positive definiteness by ball elimination at growing precision.

A symmetric block matrix is positive definite if and only if its first block P is, and the Schur complement
C - B P^-1 B' of the rest is. Applied block by block, and within a block by halving down to scalar pivots, every number
a ball: if all pivots are certainly positive, every matrix within the balls is positive definite. If one is certainly
not, none is. Otherwise the same is tried with more bits; after the last the answer is no.

Nothing is shared with `proof.psd` (float64 Cholesky with a shift, judged by its residual) but the statement. A
singular matrix is never accepted here; `rational.is_semidefinite` decides small ones.
"""

from __future__ import annotations

from collections.abc import Callable

from flint import arb_mat, ctx

from lipcert.proof.exact.balls import Ball, Balls, diagonal
from lipcert.proof.refusal import TooLarge

PRECISIONS = (128, 256, 512)  # bits
MAX_SIDE = 1024  # rows of one block
_BASE = 16  # blocks of this size are not halved

Blocks = dict[tuple[int, int], Balls]  # lower triangle: (row block, column block), row >= column


class _Doubt(Exception):
    """A pivot's ball holds zero: more bits may decide."""


class _Indefinite(Exception):
    """A pivot is certainly not positive."""


def is_definite(build: Callable[[], Blocks]) -> bool | None:
    """Whether a symmetric block matrix is positive definite, None where the bits do not suffice to tell.

    Args:
        build: makes the lower triangle's blocks, numbered 0, 1, ..., at flint's working precision.

    Raises:
        TooLarge: a block is.
    """
    for bits in PRECISIONS:
        with ctx.workprec(bits):
            try:
                _eliminate(build())
                return True
            except _Indefinite:
                return False
            except _Doubt:
                continue
    return None


def _eliminate(blocks: Blocks) -> None:
    """Eliminate block after block; fill-in appears where two blocks are coupled to the same one.

    The input's block, often the largest, is first where it is diagonal, and else last, where it needs no inverse.
    """
    order = sorted({i for i, _ in blocks}, reverse=True)
    if _is_diagonal(blocks[0, 0]):
        order = [0, *order[:-1]]
    for k in order:
        pivot = blocks.pop((k, k))
        if pivot.nrows() > MAX_SIDE:
            raise TooLarge(f"a block of {pivot.nrows()} rows is too large for the exact engine (at most {MAX_SIDE})")
        coupled = _pop_coupled(blocks, k)
        if not coupled:
            _require_definite(pivot)
            continue
        inverse = _inverse(pivot)
        for j, right in coupled.items():
            solved = inverse * right
            for i, left in coupled.items():
                if i >= j:
                    change = left.transpose() * solved
                    blocks[i, j] = blocks[i, j] - change if (i, j) in blocks else -change


def _pop_coupled(blocks: Blocks, k: int) -> dict[int, Balls]:
    """Take out the blocks (k, j) that couple block k to others, by j."""
    pairs = [pair for pair in blocks if k in pair]
    found = {pair: blocks.pop(pair) for pair in pairs}
    return {i + j - k: block if i == k else block.transpose() for (i, j), block in found.items()}


def _require_definite(matrix: Balls) -> None:
    """Return if a matrix of balls is positive definite; raises _Doubt or _Indefinite."""
    if matrix.nrows() <= _BASE or _is_diagonal(matrix):
        _inverse(matrix)
        return
    corner, below, rest = _quarters(matrix)
    _require_definite(rest - below * _inverse(corner) * below.transpose())


def _inverse(matrix: Balls) -> Balls:
    """Return the inverse of a positive definite matrix of balls; raises _Doubt or _Indefinite."""
    if _is_diagonal(matrix):
        return diagonal(1 / _pivot(matrix[i, i]) for i in range(matrix.nrows()))
    if matrix.nrows() <= _BASE:
        return _small_inverse(matrix.tolist())
    corner, below, rest = _quarters(matrix)
    first = _inverse(corner)
    link = below * first
    second = _inverse(rest - link * below.transpose())
    side = -(second * link)
    top = first - link.transpose() * side
    upper = [a + b for a, b in zip(top.tolist(), side.transpose().tolist(), strict=True)]
    return arb_mat(upper + [a + b for a, b in zip(side.tolist(), second.tolist(), strict=True)])


def _is_diagonal(matrix: Balls) -> bool:
    return all(x.is_zero() for i, row in enumerate(matrix.tolist()) for x in row[:i])


def _quarters(matrix: Balls) -> tuple[Balls, Balls, Balls]:
    """Return the upper left, lower left and lower right quarter."""
    rows, h = matrix.tolist(), matrix.nrows() // 2
    below = arb_mat([row[:h] for row in rows[h:]])
    return arb_mat([row[:h] for row in rows[:h]]), below, arb_mat([row[h:] for row in rows[h:]])


def _small_inverse(entries: list[list[Ball]]) -> Balls:
    """Check all pivots of scalar elimination, then invert."""
    a, n = [row[:] for row in entries], len(entries)
    for k in range(n):
        pivot = _pivot(a[k][k])
        for i in range(k + 1, n):
            factor = a[i][k] / pivot
            for j in range(k + 1, i + 1):
                a[i][j] = a[i][j] - factor * a[j][k]
    try:
        return arb_mat(entries).inv()
    except ZeroDivisionError:
        raise _Doubt from None


def _pivot(value: Ball) -> Ball:
    if value > 0:
        return value
    if value <= 0:
        raise _Indefinite
    raise _Doubt
