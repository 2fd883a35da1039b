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
from typing import ClassVar

import numpy as np
import scipy.linalg

from lipcert.bounds.chain import top_eigenvalue
from lipcert.bounds.lipsdp._clock import Clock
from lipcert.bounds.multiplier_method import LayerwiseMethod
from lipcert.network.enclosure import Float

_STEPS = 15
_HALVINGS = 12
_ENOUGH = 0.5
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
        lam = _inside(q)
        height = _height(q, lam)
        for _ in range(_STEPS):
            if self._clock.is_up:
                break
            inner = _gram(q, lam)
            gradient = 2.0 / lam - inner.diagonal()
            hessian = np.diag(2.0 / lam**2) + inner * inner
            step = scipy.linalg.solve(lam[:, None] * hessian * lam, lam * gradient, assume_a="pos")
            decrement = float(np.sqrt(max(float(step @ (lam * gradient)), 0.0)))
            before, (lam, height) = height, _climbed(q, (lam, height), step)
            if decrement < _ENOUGH or height <= before:
                break
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


def _height(q: Float, lam: Float) -> float:
    """Return (1), minus infinity outside."""
    root = np.sqrt(lam)
    try:
        factor = np.linalg.cholesky(np.eye(len(q)) - root[:, None] * q * root)
    except np.linalg.LinAlgError:
        return -math.inf
    return float(2.0 * np.log(lam).sum() + 2.0 * np.log(factor.diagonal()).sum())


def _climbed(q: Float, start: tuple[Float, float], step: Float) -> tuple[Float, float]:
    """Return lambda and (1) after a step that is halved until (1) grows; the start where it does not."""
    lam, height = start
    for halvings in range(_HALVINGS):
        stretch = 1.0 + step * 0.5**halvings
        if (stretch > 0.0).all():
            new = _height(q, lam * stretch)
            if new > height:
                return lam * stretch, new
    return start


def _gram(q: Float, lam: Float) -> Float:
    """Return G = (I - Q diag(lambda))^-1 Q = L^(-1/2) (I - M)^-1 L^(1/2) Q, M = L^(1/2) Q L^(1/2), L = diag(lambda)."""
    root = np.sqrt(lam)[:, None]
    factor = scipy.linalg.cho_factor(np.eye(len(q)) - root * q * root.T, lower=True)
    g = scipy.linalg.cho_solve(factor, root * q) / root
    return np.asarray(0.5 * (g + g.T))
