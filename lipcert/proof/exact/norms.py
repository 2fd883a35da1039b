r"""Operator norms without float64: the same theorems as `proof.norms`, on the operator's whole matrix.

* linf and l1: the largest row (column) sum of |A|.
* l2, to be proved at most s: with A = A^ + D, |D| <= r entrywise, ||A|| <= ||A^|| + ||r||. Either
  || |A^| + r || <= s by Collatz and Wielandt (see `proof.norms.magnitude`), or (s - ||r||)^2 I - A^A^' > 0 by ball
  elimination, or the same >= 0 in rational numbers, where the matrix is small and exact. All of this is at flint's
  working precision, which the rules set.
* Scalings and index maps in closed form (see `proof.norms.simple`); pooling by Collatz and Wielandt.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from flint import arb, arb_mat, fmpq

from lipcert.network.graph import Node, Shape
from lipcert.network.operators import AvgPool, Gather, Reshape, Scale
from lipcert.proof.claims import Norm
from lipcert.proof.exact.balls import Ball, Balls, Matrix, absolute, diagonal, largest
from lipcert.proof.exact.definite import MAX_SIDE, PRECISIONS, is_definite
from lipcert.proof.exact.operators import matrix_of, weight_or_matrix
from lipcert.proof.exact.rational import MAX_SIDE as MAX_RATIONAL
from lipcert.proof.exact.rational import is_semidefinite
from lipcert.proof.refusal import Refused, TooLarge

_STEPS = 40  # power steps of Collatz and Wielandt; a matter of tightness only


def operator_norm(node: Node, before: Shape, norm: Norm, proposal: float | None) -> Ball:
    """Return an upper bound of the norm of an affine node: the proposal once proved, or a closed form.

    Raises:
        Refused: the proposal cannot be proved, or the operator is too large.
    """
    op = node.op
    if isinstance(op, (Reshape, Scale, Gather)):
        return _simple(op, norm)
    if isinstance(op, AvgPool) and norm == "linf":
        return _average_rows(op, node, before)
    matrix = weight_or_matrix(node, before)
    if norm != "l2":
        return _largest_sum(matrix.magnitude() if norm == "linf" else matrix.magnitude().transpose())
    if isinstance(op, AvgPool):
        return _nonnegative_square(matrix.magnitude()).sqrt()
    if proposal is None or not (math.isfinite(proposal) and proposal >= 0):
        raise Refused(f"a norm is finite and not negative, not {proposal}")
    _require_norm(matrix, proposal, f"the l2 norm of '{node.name}' at most {proposal!r}")
    return arb(proposal)


def _require_norm(matrix: Matrix, claim: float, what: str) -> None:
    """Return if the l2 norm of all matrices within the radii is at most `claim`."""
    if matrix.rad is None:
        require_at_most(matrix.mid, arb(claim), what)
    elif not _nonnegative_square(matrix.magnitude()) <= arb(claim) ** 2:
        require_at_most(matrix.mid, arb(claim) - _nonnegative_square(matrix.rad).sqrt(), what)


def require_at_most(matrix: Balls, claim: Ball, what: str) -> None:
    """Return if the l2 norm of a matrix of balls is at most `claim`.

    what: the claim, for the message.

    Raises:
        Refused: that cannot be proved, or the matrix is too large.
    """
    wide = matrix if matrix.nrows() <= matrix.ncols() else matrix.transpose()
    if wide.nrows() > MAX_SIDE:
        raise TooLarge(f"{what}: {wide.nrows()} rows are too many for the exact engine (at most {MAX_SIDE})")
    if not claim >= 0:
        raise Refused(f"{what}: the weights are not known well enough")
    square = claim * claim
    if _nonnegative_square(absolute(matrix)) <= square:
        return

    def gap() -> dict[tuple[int, int], Balls]:
        return {(0, 0): diagonal([square] * wide.nrows()) - wide * wide.transpose()}

    if not is_definite(gap) and not _is_rationally_at_most(wide, square):
        raise Refused(f"{what}: it is not, or {PRECISIONS[-1]} bits do not tell")


def _is_rationally_at_most(wide: Balls, square: Ball) -> bool:
    """Whether square I - A A' >= 0 for a small matrix of exact numbers; False for any other."""
    if wide.nrows() > MAX_RATIONAL or not all(x.is_exact() for x in [square, *wide.entries()]):
        return False
    rows = [[x.fmpq() for x in row] for row in wide.tolist()]
    gram = [[-sum((a * b for a, b in zip(p, q, strict=True)), fmpq(0)) for q in rows] for p in rows]
    for i, row in enumerate(gram):
        row[i] += square.fmpq()
    return is_semidefinite(gram)


def _largest_sum(matrix: Balls) -> Ball:
    return largest(sum(row, arb(0)) for row in matrix.tolist())


def _average_rows(op: AvgPool, node: Node, before: Shape) -> Ball:
    """Return the largest row sum with each division at the end: 9 / 9 is 1, and nine times the ball 1 / 9 is not."""
    ones = replace(node, op=replace(op, counts=np.ones_like(op.counts)))
    counts = np.broadcast_to(op.counts, node.shape).ravel().tolist()
    rows = matrix_of(ones, before).mid.tolist()
    return largest(sum(row, arb(0)) / arb(count) for row, count in zip(rows, counts, strict=True))


def _nonnegative_square(matrix: Balls) -> Ball:
    """Return an upper bound of ||A||_2^2 for A >= 0: max_j (A'A x)_j / x_j, with any x > 0."""
    sizes = np.array([float(x.mid()) for x in matrix.entries()]).reshape(matrix.nrows(), matrix.ncols())
    scale = sizes.max(initial=0.0)
    x = np.ones(matrix.ncols())
    with np.errstate(all="ignore"):
        for _ in range(_STEPS if scale > 0 else 0):
            step = sizes.T / scale @ (sizes / scale @ x)
            x = np.maximum(step / step.max(), 2.0**-400)
    vector = arb_mat(len(x), 1, np.where(np.isfinite(x), x, 1.0).tolist())
    product = matrix.transpose() * (matrix * vector)
    return largest(a / b for a, b in zip(product.entries(), vector.entries(), strict=True))


def _simple(op: Reshape | Scale | Gather, norm: Norm) -> Ball:
    if isinstance(op, Reshape):
        return arb(1)
    if isinstance(op, Scale):
        pairs = zip(op.factor.mid.ravel().tolist(), op.factor.radius.ravel().tolist(), strict=True)
        return largest(abs(arb(mid)) + arb(rad) for mid, rad in pairs)
    used = op.index[op.index >= 0].ravel()
    most = arb(int(np.unique(used, return_counts=True)[1].max(initial=0)))
    if norm == "linf":
        return arb(1) if used.size else arb(0)
    return most if norm == "l1" else most.sqrt()
