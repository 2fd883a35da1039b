r"""Multipliers layer by layer, each layer at the analytic centre of what keeps its gains in check.

For one block with gain S = R P R' (`bounds.frontier`), D = diag(1 / lambda) and rho_i = alpha_i^2 + beta_i^2, maximise

    2 sum log lambda_i + log det (I - U' diag(lambda) U),    U U' = Q = rho^(1/2) S rho^(1/2).               (1)

(It is sum log lambda + log det of the block of Z that the row and the block add, with T = diag(lambda) in the corner
where Z has 2 T: [[I + W' 2 pi T W, -W' sigma T], [-sigma T W, T]], W W' = S, and sigma^2 - 2 pi = rho. Half the corner
asks for Cov(v) <= D, so gains do not grow from layer to layer.) With G = U (I - U' diag(lambda) U)^-1 U' the gradient
of (1) is 2 / lambda_i - G_ii and its Hessian -diag(2 / lambda^2) - G o G (o: entry by entry).

Centres of whole chains keep gains in check with less: their multipliers are larger. With rho in the place of
2 r^2 = (beta - alpha)^2 / 2 in D - r S r > 0, which is all that is needed, there is room for a factor up to
rho / (2 r^2), 2 for slopes [0, 1] and 1 for [-1, 1]. The square root of it is taken, at most 2^(1/2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from scipy.linalg.lapack import dposv, dpotrf, dpotri, dpstrf, dtrtrs
from scipy.sparse.linalg import LinearOperator, cg

from lipcert.bounds.chain import top_eigenvalue
from lipcert.bounds.lipsdp._clock import Clock
from lipcert.bounds.multiplier_method import LayerwiseMethod
from lipcert.network.enclosure import Float

_STEPS = 15
_HALVINGS = 12
_ENOUGH = 0.5
_WIDE = 256
"""Neurons from which on a layer has its means: low rank, conjugate gradients, and a decrement that grows with them."""
_FLOOR = 1e-200
"""Share of the mean gain given to neurons whose own gain vanishes. Not more: weight decay leaves rows of 1e-35, whose
multipliers must start large, as each Newton step on the whole changes them by a bounded factor only."""


class CentredLayers(LayerwiseMethod):
    """Multipliers near the maximum of (1): where `lipsdp` starts."""

    name: ClassVar[str] = "centred-layers"
    summary: ClassVar[str] = "one multiplier per neuron, layer by layer, at an analytic centre"
    cost: ClassVar[str] = "some n^3 per layer"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def layer(self, gain: Float, alpha: Float, beta: Float) -> Float:
        """Return 1 / (2 lambda), by Newton with backtracking.

        The start itself is feasible too: at the time limit it is returned as it is.
        """
        root = np.sqrt(alpha * alpha + beta * beta)
        q = root[:, None] * gain * root
        unit = math.frexp(float(q.diagonal().mean()))[1]  # gains of 1e-120 times the floor would be 0
        q = np.ldexp(q, -unit)
        q = q + np.diag(np.full(len(q), _FLOOR if q.any() else 1.0))
        lam, gains = _inside(q), _gains(q)
        place, enough = _Place.of(gains, lam), _ENOUGH * max(1.0, math.sqrt(len(q) / _WIDE))
        for _ in range(_STEPS):
            if place is None or self._clock.is_up:
                break
            step, decrement = place.newton(gains)
            new = _climbed(gains, place, step)
            lam = lam if new is None else new.lam
            place = new if decrement >= enough else None
        bolder = np.sqrt(np.clip(2.0 * root**2 / (beta - alpha) ** 2, 1.0, 2.0))
        return np.asarray(np.ldexp(0.5 / (bolder * lam), unit))


def _inside(q: Float) -> Float:
    """Return a lambda with diag(1 / lambda) >= 2 Q.

    D_i = sum_j |Q_ij| u_i / u_j gives D >= Q for any u > 0, and so does D_i = u_i^2 ||diag(1/u) Q diag(1/u)||; here
    u_i^2 = Q_ii. Row sums are better for some layers of a few neurons, the norm for all wide ones.
    """
    norms = np.sqrt(q.diagonal())
    by_sums = (np.abs(q) / norms).sum(axis=1) * norms
    by_norm = norms**2 * top_eigenvalue(q / norms / norms[:, None])
    return np.asarray(0.5 / (by_sums if np.log(by_sums).sum() < np.log(by_norm).sum() else by_norm))


class _Gains(Protocol):
    """Q: what (1) needs of it."""

    def rest(self, lam: Float) -> Float:
        """Return a matrix with the determinant of I - M, M = L^(1/2) Q L^(1/2), L = diag(lambda)."""

    def inner(self, lam: Float, factor: Float) -> Float:
        """Return L^(1/2) G L^(1/2) = (I - M)^-1 M, given the lower Cholesky factor of `rest`."""


@dataclass(frozen=True, eq=False)
class _Whole:
    """Q itself. Each of the two costs n^3."""

    q: Float

    def rest(self, lam: Float) -> Float:
        """Return I - M."""
        root = np.sqrt(lam)
        matrix = root[:, None] * self.q * -root
        matrix[np.diag_indices_from(matrix)] += 1.0
        return matrix

    def inner(self, lam: Float, factor: Float) -> Float:
        """Return (I - M)^-1 - I."""
        inverse = np.tril(dpotri(factor, lower=1)[0])
        inverse += np.tril(inverse, -1).T
        inverse[np.diag_indices_from(inverse)] -= 1.0
        return np.asarray(inverse)


@dataclass(frozen=True, eq=False)
class _Narrow:
    """U with U U' = Q, of fewer columns than rows: a convolution with many channels on a small image, say."""

    u: Float

    def rest(self, lam: Float) -> Float:
        """Return I - U'LU, n d^2 for d columns."""
        scaled = np.sqrt(lam)[:, None] * self.u
        return np.asarray(np.eye(self.u.shape[1]) - scaled.T @ scaled)

    def inner(self, lam: Float, factor: Float) -> Float:
        """Return L^(1/2) U (I - U'LU)^-1 U' L^(1/2), n^2 d."""
        half = dtrtrs(factor, (np.sqrt(lam)[:, None] * self.u).T, lower=1)[0]
        return np.asarray(half.T @ half)


def _gains(q: Float) -> _Gains:
    """Return Q with a factor of it where it is of low rank, up to rounding relative to each neuron's own gain."""
    if len(q) <= _WIDE:
        return _Whole(q)
    norms = np.sqrt(q.diagonal())
    factor, pivots, rank, _ = dpstrf(q / norms / norms[:, None], tol=1e-12, lower=1)
    if 2 * rank > len(q):
        return _Whole(q)
    u = np.empty((len(q), rank))
    u[pivots - 1] = np.tril(factor)[:, :rank]
    return _Narrow(norms[:, None] * u)


@dataclass(frozen=True, eq=False)
class _Place:
    """A feasible lambda, the Cholesky factor of `_Gains.rest`, and (1)."""

    lam: Float
    factor: Float
    height: float

    @classmethod
    def of(cls, gains: _Gains, lam: Float) -> _Place | None:
        """Return the place, or None where it is not feasible."""
        factor, info = dpotrf(gains.rest(lam).T, lower=1, overwrite_a=1)
        if info:
            return None
        height = float(2.0 * np.log(lam).sum() + 2.0 * np.log(factor.diagonal()).sum())
        return cls(lam, factor, height) if math.isfinite(height) else None

    def newton(self, gains: _Gains) -> tuple[Float, float]:
        """Return the step, relative to lambda, and the decrement; for wide layers by conjugate gradients."""
        inner = gains.inner(self.lam, self.factor)
        gradient = 2.0 - inner.diagonal()
        hessian = np.square(inner, out=inner)
        hessian[np.diag_indices_from(hessian)] += 2.0
        if len(hessian) <= _WIDE:
            step = dposv(hessian, gradient, lower=1, overwrite_a=1)[1]
        else:
            step = cg(hessian, gradient, rtol=1e-2, maxiter=50, M=LinearOperator(hessian.shape, _divide(hessian)))[0]
        return step, math.sqrt(max(float(step @ gradient), 0.0))


def _climbed(gains: _Gains, start: _Place, step: Float) -> _Place | None:
    """Return the place after a step that is halved until (1) grows; None where it does not."""
    for halvings in range(_HALVINGS):
        stretch = 1.0 + step * 0.5**halvings
        new = _Place.of(gains, start.lam * stretch) if (stretch > 0.0).all() else None
        if new is not None and new.height > start.height:
            return new
    return None


def _divide(matrix: Float) -> Callable[[Float], Float]:
    """Return the division by a diagonal."""
    diagonal = matrix.diagonal().copy()
    return lambda x: x / diagonal
