r"""How far linear functions of noises move: the multiplier rule at one point, on the side of its rows.

Differences dx are those from an *anchor* x* = x + a, x the centre of the ball: |dx + a| <= eps. Given
Y = [G, N diag(sigma)], one row for each unstable neuron, for each function asked for and for the function c_0 below
where it is not zero; numbers d > 0 for the neurons and a symmetric matrix X for the functions.

Theorem. If diag(d, X) - Y Y' >= 0 then for every xi and z = Y xi, c the part of z that belongs to the functions,

    sum_i z_i^2 / d_i + c' X^-1 c  <=  |xi|^2                                                              (1)

(for a singular X: for every X + delta I). Proof. Take positive definite D >= diag(d, X) as near as you like. Y Y' <= D
is the same as Y' D^-1 Y <= I (both say that D^(-1/2) Y has norm at most 1), so z' D^-1 z <= |xi|^2.

Now let xi = (dx, w / sigma), w_i^2 <= r_i^2 dz_i^2 + 2 sigma_i^2 g_i l_i with l_i = k_i dz_i + w_i (`tilted`; g = 0 for
secants), dz_i = z_i + delta_i, |delta_i| <= e_i. For t > 0,

    r_i^2 dz_i^2 = r_i^2 (z_i + delta_i)^2 <= r_i^2 (1 + t) z_i^2 + r_i^2 (1 + 1/t) e_i^2.

With d_i <= sigma_i^2 / (r_i^2 (1 + t)) the terms of z_i cancel in (1), and |dx|^2 <= eps^2 - |a|^2 - 2 a.dx. Let
c_0 = a.dx - sum_i g_i l_i, a linear function of xi but for delta, and k its unit vector among the functions. Then

    c' X^-1 c + 2 k.c  <=  eps^2 - |a|^2 + sum_i r_i^2 (1 + 1/t) e_i^2 / sigma_i^2  =:  rho.

As (c + X k)' X^-1 (c + X k) = c' X^-1 c + 2 k.c + X_00 <= rho + X_00, Cauchy and Schwarz give for every function

    |c_j + X_j0|  <=  sqrt(X_jj (rho + X_00)).                                                             (2)

Where rho + X_00 < 0 there is no such xi, and (2) may be said with 0. Without c_0 there is no X_00 and no X_j0.

This is the theorem of `proof.rules.multipliers` with lambda_i = 1 / sigma_i^2 and slopes seen from the anchor, its
input and noises eliminated by Schur complements: the matrix is of the size of the unstable neurons (or smaller, see
`forms`), and one matrix serves all functions. X is chosen as what makes the complement of the others zero, and a little
more.

Rounding: of the matrix, see `forms`; its row sums go to `psd` as in `proof.inequality`. a, g, k and X are exact. The
row of c_0 as it is computed differs from c_0 by little times |dx| and |w|, of which bounds are known, and 2 c_0 in
(2) by twice that.

Sources: LipSDP (Fazlyab et al. 2019); sectors around a point (Yin, Seiler & Arcak 2021).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lipcert.network.enclosure import TINY, UNIT, Float, gamma, round_up
from lipcert.proof.local.affine import Box
from lipcert.proof.local.arithmetic import above, over
from lipcert.proof.local.differences import Rows
from lipcert.proof.local.forms import SHARE, Form, form
from lipcert.proof.psd import is_psd
from lipcert.proof.triangular import solve_lower

_ROOMS = (1e-6, 1e-3)  # of X, relative; tried in order, after what rounding is about to need
_LEAST_ROOM = 1e-10


@dataclass(frozen=True, eq=False)
class Seen:
    """The ball |dx + a| <= eps of differences from an anchor.

    Attributes:
        eps: radius. shift: (n,) a, the anchor less the centre, exactly; zero for the centre itself.
    """

    eps: float
    shift: Float

    @property
    def room(self) -> Float:
        """Upper bounds of eps^2 - |a|^2."""
        least = (self.shift @ self.shift) * (1.0 - 4.0 * gamma(self.shift.size)) - self.shift.size * TINY
        most = over(np.array(self.eps * self.eps), 2)
        return np.nextafter(most - np.maximum(np.nextafter(least, -np.inf), 0.0), np.inf) if least > 0 else most


@dataclass(frozen=True, eq=False)
class Noises:
    """What is known of u bounded noises w: w^2 <= r^2 dz^2 + 2 sigma^2 g (k dz + w).

    Attributes:
        rows: dz.
        radius: (u,) r, positive. scale: (u,) sigma, proposed: any positive numbers.
        lift, slope: (u,) g and k; g = 0 for secants.
        width: (u,) bounds of |w|; any numbers where all g are zero.
    """

    rows: Rows
    radius: Float
    scale: Float
    lift: Float
    slope: Float
    width: Float

    @staticmethod
    def of_secants(rows: Rows, radius: Float, scale: Float) -> Noises:
        """Return noises |w| <= r |dz|."""
        nothing = np.zeros_like(radius)
        return Noises(rows, radius, scale, nothing, nothing, nothing)

    def tilt(self, ball: Seen) -> Rows:
        """Return the row of c_0, or none where it is zero."""
        if not (self.lift.any() or ball.shift.any()):
            return self.rows.take(np.zeros(len(self.radius), dtype=np.bool_))
        part, terms = self.lift * self.slope, len(self.radius) + 6
        inputs, noise = ball.shift - part @ self.rows.inputs, -(part @ self.rows.noise) - self.lift
        sizes = np.abs(part) @ np.abs(self.rows.inputs), np.abs(part) @ np.abs(self.rows.noise) + np.abs(self.lift)
        widths = over(np.abs(ball.shift) + ball.eps, 2), self.width
        products = (np.abs(ball.shift) + sizes[0]) @ widths[0] + sizes[1] @ widths[1]
        lost = gamma(terms) * over(products, inputs.size + 2 * terms) + np.abs(part) @ self.rows.error
        tiny = terms * TINY * (widths[0].sum() + widths[1].sum())
        return Rows(inputs[None], noise[None], over(lost + tiny, inputs.size + 2 * terms)[None])


@np.errstate(all="ignore")
def reach(noises: Noises, functions: Rows, ball: Seen) -> Box:
    """Return bounds (S,) of how functions move on a ball; infinite where nothing is proved.

    Args:
        noises: the u unstable neurons.
        functions: S of the same noises.
        ball: where.

    Level: verified.
    """
    count, own = len(functions.error), noises.tilt(ball)
    target = _proved(noises, Rows.join([functions, own]))
    if target is None:
        return np.full(count, -np.inf), np.full(count, np.inf)
    parts = np.square(noises.radius * (noises.rows.error / noises.scale)) * (1.0 + 1.0 / SHARE)
    total, middle = ball.room + over(parts.sum(), len(parts) + 8), np.zeros(count)
    if len(own.error):
        total = total + over(2.0 * own.error[0] + target[-1, -1], 4)
        middle = target[:count, -1]
    total = np.maximum(total + 4.0 * UNIT * (np.abs(ball.room) + np.abs(total)), 0.0)  # two roundings at most
    length = round_up(_roots(np.diagonal(target)[:count], total) + functions.error)
    return -above(middle, length), above(-middle, length)


def _proved(noises: Noises, functions: Rows) -> Float | None:
    """Return X of the theorem for all functions, or None where nothing is proved."""
    found = form(noises.rows, noises.radius, noises.scale, functions)
    if found is None:
        return None
    least = 16.0 * UNIT * len(found.matrix) * (len(found.matrix) + found.terms)
    for room in (max(least, _LEAST_ROOM), *_ROOMS):
        target = _target(found, room)
        if target is None:
            return None
        matrix = found.with_functions(target)
        spread = found.spread(matrix)
        if np.isfinite(matrix).all() and spread is not None and is_psd([matrix], [], [spread]):
            return target
    return None


def _target(found: Form, room: float) -> Float | None:
    """Return X with some room, or None where the other rows' block is not positive definite. Nothing is trusted."""
    count = len(found.room)
    hidden, crossing = found.matrix[:count, :count].copy(), found.matrix[:count, count:]
    hidden[np.arange(count), np.arange(count)] -= found.room * room
    try:
        half = solve_lower(np.asarray(np.linalg.cholesky(hidden), dtype=np.float64), crossing)
    except np.linalg.LinAlgError:
        return None
    target = half.T @ half - found.matrix[count:, count:]
    target = (target + target.T) / 2
    target[np.diag_indices_from(target)] *= 1.0 + room
    target[np.diag_indices_from(target)] += TINY
    return target


def _roots(squares: Float, total: Float) -> Float:
    """Return the roots of X_jj times a sum of upper bounds, rounded up; infinite where they are no numbers."""
    found: Float = round_up(np.sqrt(over(squares * round_up(total), 4)), 4)
    return np.where(np.isfinite(found), found, np.inf)
