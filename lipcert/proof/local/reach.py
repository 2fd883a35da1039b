r"""How far linear functions of noises move: the multiplier rule at one point, on the side of its rows.

Differences dx are those from an *anchor* x* = x + a, x the centre of the ball: |dx + a| <= eps. Given
Y = [G, N diag(sigma)], one row for each unstable neuron, for each function asked for and, where a is not zero, the row
(a, 0) among the functions; numbers d > 0 for the neurons and a symmetric matrix X for the functions.

Theorem. If diag(d, X) - Y Y' >= 0 then for every xi and z = Y xi, c the part of z that belongs to the functions,

    sum_i z_i^2 / d_i + c' X^-1 c  <=  |xi|^2                                                              (1)

(for a singular X: for every X + delta I). Proof. Take positive definite D >= diag(d, X) as near as you like. Y Y' <= D
is the same as Y' D^-1 Y <= I (both say that D^(-1/2) Y has norm at most 1), so z' D^-1 z <= |xi|^2.

Now let xi = (dx, w / sigma), |w_i| <= r_i |dz_i|, dz_i = z_i + delta_i, |delta_i| <= e_i. For t > 0,

    w_i^2 <= r_i^2 (z_i + delta_i)^2 <= r_i^2 (1 + t) z_i^2 + r_i^2 (1 + 1/t) e_i^2.

With d_i <= sigma_i^2 / (r_i^2 (1 + t)) the terms of z_i cancel in (1), and |dx|^2 <= eps^2 - |a|^2 - 2 a.dx. The
function c_0 = a.dx is one of the c, so with k its unit vector

    c' X^-1 c + 2 k.c  <=  eps^2 - |a|^2 + sum_i r_i^2 (1 + 1/t) e_i^2 / sigma_i^2  =:  rho.

As (c + X k)' X^-1 (c + X k) = c' X^-1 c + 2 k.c + X_00 <= rho + X_00, Cauchy and Schwarz give for every function

    |c_j + X_j0|  <=  sqrt(X_jj (rho + X_00)).                                                             (2)

For a = 0 there is no row 0, and no X_j0 in (2). (X_00 >= |a|^2, so the root is never that of a negative number.)

This is the theorem of `proof.rules.multipliers` with lambda_i = 1 / sigma_i^2 and slopes seen from the anchor, its
input and noises eliminated by Schur complements: the matrix is of the size of the unstable neurons, and one matrix
serves all functions. X is chosen as what makes the complement of the neurons zero, and a little more.

Rounding. |fl(Y Y') - Y Y'| <= gamma_k |Y||Y|' with the roundings of N sigma and of the differences counted in k; the
row sums go to `psd` as in `proof.inequality`, weighted by powers of two. a is exact, and so is X.

Sources: LipSDP (Fazlyab et al. 2019); sectors around a point (Yin, Seiler & Arcak 2021).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lipcert.network.enclosure import TINY, UNIT, Float, gamma, round_up
from lipcert.proof.local.affine import Box
from lipcert.proof.local.arithmetic import above, over
from lipcert.proof.local.differences import Rows
from lipcert.proof.psd import is_psd
from lipcert.proof.triangular import solve_lower

SHARE = 2.0**-24  # t of the theorem, a power of two
_ROOMS = (1e-6, 1e-3)  # of X, relative; tried in order
LARGEST = 4096  # rows of a matrix that is factorised
_WIDEST = 2.0**100  # of Y; then what underflow loses in N sigma costs less than _LOST in an entry of Y Y'
_LOST = 2.0**-900


@dataclass(frozen=True, eq=False)
class Seen:
    """The ball |dx + a| <= eps of differences from an anchor.

    Attributes:
        eps: radius. shift: (n,) a, the anchor less the centre, exactly; zero for the centre itself.
    """

    eps: float
    shift: Float

    @property
    def rows(self) -> Float:
        """(0 or 1, n) the row of a, where it is not zero."""
        return self.shift[None][: int(bool((self.shift != 0).any()))]


@np.errstate(all="ignore")
def reach(neurons: Rows, radius: Float, scale: Float, functions: Rows, ball: Seen) -> Box:
    """Return bounds (S,) of how functions move on a ball; infinite where nothing is proved.

    Args:
        neurons: the u unstable neurons.
        radius: (u,) r, positive. scale: (u,) sigma, proposed: any positive numbers.
        functions: S of the same noises.
        ball: where.

    Level: verified.
    """
    count, own = len(functions.error), ball.rows
    extra = Rows(own, np.zeros((len(own), functions.noise.shape[1])), np.zeros(len(own)))
    target = _proved(neurons, radius, scale, Rows.join([functions, extra]))
    if target is None:
        return np.full(count, -np.inf), np.full(count, np.inf)
    parts = np.square(radius * (neurons.error / scale)) * (1.0 + 1.0 / SHARE)
    total = over(np.array(ball.eps * ball.eps), 2) + over(parts.sum(), len(radius) + 8)
    middle = np.zeros(count)
    if len(own):
        square = (ball.shift @ ball.shift) * (1.0 - 4.0 * gamma(ball.shift.size)) - ball.shift.size * TINY
        square = np.maximum(np.nextafter(square, -np.inf), 0.0)  # at most |a|^2
        total = np.nextafter(round_up(total + target[-1, -1]) - square, np.inf)
        middle = target[:count, -1]
    length = round_up(_roots(np.diagonal(target)[:count], total) + functions.error)
    return -above(middle, length), above(-middle, length)


def _proved(neurons: Rows, radius: Float, scale: Float, functions: Rows) -> Float | None:
    """Return X of the theorem for all functions, or None where nothing is proved."""
    count = len(radius)
    if count + len(functions.error) > LARGEST:
        return None
    rows = Rows.join([neurons, functions])
    y = np.concatenate([rows.inputs, rows.noise * scale], axis=1)
    share = np.square(scale / radius) / (1.0 + SHARE)
    share = np.nextafter(share * (1.0 - 8.0 * UNIT), 0.0)  # five roundings at most
    if not ((np.abs(y) <= _WIDEST).all() and np.isfinite(share).all() and (share > TINY).all()):
        return None
    square = y @ y.T
    for room in _ROOMS:
        target = _target(square, share, room)
        if target is None:
            return None
        matrix = -square
        matrix[np.arange(count), np.arange(count)] += share
        matrix[count:, count:] += target
        spread = _spread(y, matrix)
        if np.isfinite(matrix).all() and spread is not None and is_psd([matrix], [], [spread]):
            return target
    return None


def _target(square: Float, share: Float, room: float) -> Float | None:
    """Return X with some room, or None where the neurons' own block is not positive definite. Nothing is trusted."""
    count = len(share)
    hidden, crossing = -square[:count, :count], square[:count, count:]
    hidden[np.arange(count), np.arange(count)] += share * (1.0 - room)
    try:
        half = solve_lower(np.asarray(np.linalg.cholesky(hidden), dtype=np.float64), crossing)
    except np.linalg.LinAlgError:
        return None
    target = square[count:, count:] + half.T @ half
    target = (target + target.T) / 2
    target[np.diag_indices_from(target)] *= 1.0 + room
    target[np.diag_indices_from(target)] += TINY
    return target


def _spread(y: Float, matrix: Float) -> Float | None:
    """Return t_i = sum_j r_ij s_j / s_i of the radii r of the matrix, rounded up; None for no positive diagonal."""
    entries = np.diagonal(matrix)
    if not (entries > 0).all():
        return None
    weight = np.ldexp(1.0, -(np.frexp(entries)[1] // 2))
    size, terms = np.abs(y), y.shape[1] + 6
    products = over(size @ over(size.T @ weight, len(y)), terms)
    # one rounding of each entry that is a difference; all of a row are counted
    sums = gamma(terms) * products + 2.0 * UNIT * over(np.abs(matrix) @ weight, len(y)) + terms * _LOST * weight.sum()
    spread: Float = over(sums, 8) / weight
    return round_up(spread + TINY)


def _roots(squares: Float, total: Float) -> Float:
    """Return the roots of X_jj times a sum of upper bounds, rounded up; infinite where they are no numbers."""
    found: Float = round_up(np.sqrt(over(squares * round_up(total), 4)), 4)
    return np.where(np.isfinite(found), found, np.inf)
