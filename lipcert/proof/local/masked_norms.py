r"""Upper bounds of l2 norms of affine maps whose outputs and inputs are weighted, sample by sample.

N = L^(1/2) A R^(1/2) with diagonal L, R >= 0, of each sample its own: weight 0 drops a row or a column. The least of

* ||A|| sqrt(max L max R), where a norm of A is proved;
* Collatz-Wielandt: for nonnegative C, rho(C) <= max_i (C t)_i / t_i with any t > 0. C = |A|' L |A| R, whose spectrum
  is that of |N|'|N|; rows where R = 0 do not count;
* where few rows or few columns have weight: a number a little above the largest singular value of what is left,
  proved to be a bound by `norms.dense`. Its proposal, from an eigenvalue solver, is not trusted.

N grows with L and R, entry by entry, so upper bounds of the weights serve. With |A - A^| <= E (an `Enclosure`) and
computed entries of N off by two roundings,

    ||N|| <= ||fl(N^)|| + gamma_4 ||fl(N^)||_F + sqrt(r c) TINY + sqrt(max L max R) sqrt(||E||_1 ||E||_inf).

Source: Huang et al. 2021 for the masks; the three bounds are classical.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lipcert.network.enclosure import TINY, Float, gamma, round_up
from lipcert.proof.local.affine import AffineStep
from lipcert.proof.local.arithmetic import over
from lipcert.proof.local.boxes import Steps
from lipcert.proof.norms import operator_norm
from lipcert.proof.norms.dense import dense_at_most
from lipcert.proof.refusal import Refused

SMALL = 512  # rows or columns whose largest singular value is worth its price
LARGEST = 2**22  # entries of a matrix that is made
_ROOM = 1e-9  # of a proposal, relative
_ROUNDS = 3  # of Collatz-Wielandt
_FLOOR = 1e-6  # of t, relative to its largest entry


def root(x: Float) -> Float:
    """Return upper bounds of square roots, zero where x is."""
    found: Float = np.where(x == 0, 0.0, round_up(np.sqrt(x), 1))
    return found


def times(x: Float, y: Float) -> Float:
    """Return upper bounds of products of non-negative numbers, zero where a factor is, whatever the other."""
    found: Float = np.where((x == 0) | (y == 0), 0.0, round_up(x * y, 1))
    return found


def flat_max(x: Float) -> Float:
    """Return (B,) the largest entries."""
    found: Float = x.reshape(len(x), -1).max(axis=1, initial=0.0)
    return found


def layer_norms(steps: Steps, proposals: Mapping[int, float]) -> dict[int, float]:
    """Return upper bounds of the l2 norms of affine nodes: those of the proposals that are proved."""
    found = {}
    for index, step in steps.affine.items():
        try:
            found[index] = operator_norm(step.op, step.source, step.target, "l2", float(proposals[index]))
        except (KeyError, Refused):
            continue
    return found


@np.errstate(all="ignore")
def masked_norm(step: AffineStep, left: Float, right: Float, norm: float) -> Float:
    """Return (B,) upper bounds of ||L^(1/2) A R^(1/2)||; infinite where nothing is proved. Level: verified.

    Args:
        step: A.
        left: (B, *its target), not negative, upper bounds of the diagonals of L.
        right: (B, *its source), likewise of R.
        norm: an upper bound of ||A||, infinite for none.
    """
    top = root(times(flat_max(left), flat_max(right)))
    found = np.minimum(times(np.array(norm), top), root(_collatz(step, left, right)))
    lost = times(top, np.array(step.radius_norm))
    sides = [root(side.reshape(len(side), -1)) for side in (left, right)]
    for b in range(len(found)):
        found[b] = np.minimum(found[b], round_up(_remaining_norm(step, sides[0][b], sides[1][b]) + lost[b], 1))
    return np.where((top == 0) | np.isnan(found), np.where(top == 0, 0.0, np.inf), found)


def _collatz(step: AffineStep, left: Float, right: Float) -> Float:
    """Return (B,) squares of norms; NaN becomes infinity."""
    t, best = np.ones_like(right), np.full(len(right), np.inf)
    for _ in range(_ROUNDS):
        image = step.magnify_adjoint(times(left, step.magnify(times(right, t))))
        ratio = flat_max(np.where(right > 0, over(image / t, 1), 0.0))
        best = np.minimum(best, np.where(np.isnan(ratio), np.inf, ratio))
        size = flat_max(image).reshape(-1, *(1,) * (image.ndim - 1))
        t = np.maximum(np.where(size > 0, image / size, 1.0), _FLOOR)
    return best


def _remaining_norm(step: AffineStep, left: Float, right: Float) -> np.float64:
    """Return an upper bound of the norm of what weights leave of A^, for roots (m,) and (n,) of weights."""
    rows, columns = np.flatnonzero(left), np.flatnonzero(right)
    if min(len(rows), len(columns)) > SMALL or len(rows) * len(columns) > LARGEST:
        return np.float64(np.inf)
    part = step.entries.at(rows, columns)
    if part is None:
        return np.float64(np.inf)
    underflow = part.size * TINY * right.max(initial=0.0)  # of the first product; `matrix_norm` counts the second's
    return np.float64(round_up(matrix_norm(left[rows, None] * part * right[columns]) + underflow, 2))


def matrix_norm(matrix: Float) -> np.float64:
    """Return an upper bound of the l2 norm of a matrix whose entries are off by two roundings each."""
    largest = np.abs(matrix).max(initial=0.0)
    if not np.isfinite(largest):
        return np.float64(np.inf)
    exponent = int(np.frexp(largest)[1])
    scaled = np.ldexp(matrix if len(matrix) <= matrix.shape[1] else matrix.T, -exponent)
    frobenius = root(over(np.square(scaled).sum(), matrix.size + 1))
    found = frobenius
    try:
        square = np.linalg.eigvalsh(scaled @ scaled.T)[-1] if scaled.size else np.float64(0.0)
        claim = np.sqrt(np.maximum(square, 0.0)) * (1.0 + _ROOM)
        if claim < frobenius and dense_at_most(scaled, float(claim)):
            found = claim
    except (np.linalg.LinAlgError, Refused):
        pass  # the Frobenius norm is left
    lost = matrix.size * TINY  # what underflows in the entries, and what scaling loses
    return np.float64(round_up(np.ldexp(round_up(found + gamma(4) * frobenius + lost), exponent) + 2.0 * lost, 2))
