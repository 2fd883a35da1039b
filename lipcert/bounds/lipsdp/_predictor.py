"""The predictor: from a point of the central path a long way along it.

The path grad phi(y) = b / mu is analytic up to mu = 0 (under strict complementarity), so it is its Taylor expansion
in mu, not in 1/mu, that is worth following. With t = 1/mu, v = t H^-1 b and mu' = (1 - s) mu, differentiating twice,

    y(mu') = y + s v + s^2 (v - a) + O(s^3),     a = H^-1 D^3 phi[v, v] / 2                         (1)

Near mu = 0 almost the whole way s -> 1 stays inside, so the last iterations gain one to three digits each. That needs
v to about a per cent: H must be that of the point itself, not of the one before the corrector. Either it is formed
anew, or, on deep chains, H^-1 is applied by conjugate gradients with the old factor as preconditioner.
All derivatives beyond the gradient are differences of gradients: O(N w^2) each.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from lipcert.bounds.lipsdp._arrays import Array, unit, zeros
from lipcert.bounds.lipsdp._barrier import factor_at, gradient, hessian
from lipcert.bounds.lipsdp._centre import Inverse, Point
from lipcert.bounds.lipsdp._schur import Schur
from lipcert.bounds.lipsdp._system import System

_FINE = 1 / 32
_SHALLOW = 12
"""Up to so many groups a second Hessian ((l^3/3 + 4 l^2) w^3 flops) costs less than conjugate gradients with some
twenty gradients (7 l w^3 each)."""


def predict(system: System, point: Point, inverse: Inverse, t: float, greed: float) -> Array:
    """From a point near the path at t along the curve (1), `greed` of the way to the boundary."""
    y = point.y
    b = t * unit(len(y), -1, y)
    g = point.g + b  # of the barrier alone
    solve = _solver(system, point, inverse)
    v = solve(b)
    third = _third(system, y, g, v, math.sqrt(float(b @ v)))
    curve = v - 0.5 * solve(third)

    def inside(s: float) -> bool:
        return factor_at(system, y + s * v + s * s * curve) is not None

    low, high = (1.0, 1.0) if inside(1.0) else (0.0, 1.0)
    while high - low > _FINE:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if inside(middle) else (low, middle)
    s = min(greed * low, 1.0 - 1e-3)
    return y + s * v + s * s * curve


def _solver(system: System, point: Point, inverse: Inverse) -> Callable[[Array], Array]:
    """How H(y)^-1 is applied at a point, given that of another a little way off."""
    if len(system.sizes) <= _SHALLOW:
        fresh = Schur.of(hessian(system, point.y, point.factor))
        if fresh is not None:
            return fresh.solve

    def iterate(rhs: Array) -> Array:
        return _solve_here(system, point.y, inverse, rhs)

    return iterate


def _third(system: System, y: Array, g: Array, v: Array, norm: float) -> Array:
    """D^3 phi[v, v] as a second difference of the gradient; `norm` is ||v||_H."""
    step = 0.1 / norm
    ahead, behind = (factor_at(system, y + k * step * v) for k in (1.0, -1.0))
    if ahead is None or behind is None:
        return zeros((len(y),), y)
    plus, minus = gradient(system, y + step * v, ahead), gradient(system, y - step * v, behind)
    return (plus + minus - 2.0 * g) / step**2


def _product(system: System, y: Array, x: Array, norm: float) -> Array | None:
    """H(y) x as a difference of gradients; `norm` is about ||x||_H: y + a x is inside for |a| < 1 / ||x||_H."""
    step = 0.03 / norm
    ahead, behind = (factor_at(system, y + k * step * x) for k in (1.0, -1.0))
    if ahead is None or behind is None:
        return None
    return (gradient(system, y + step * x, ahead) - gradient(system, y - step * x, behind)) / (2.0 * step)


def _solve_here(system: System, y: Array, inverse: Inverse, rhs: Array) -> Array:
    """H(y)^-1 rhs by conjugate gradients, preconditioned by the M = H that was factorised a little way off."""
    x = zeros((len(y),), y)
    r = rhs
    z = inverse.of(r)
    p, mp = z, r
    rz = whole = float(r @ z)
    for _ in range(5):
        if not rz > 1e-4 * whole:
            break
        hp = _product(system, y, p, math.sqrt(float(p @ mp)))
        if hp is None:
            return x if bool((x != 0).any()) else z
        step = rz / float(p @ hp)
        x, r = x + step * p, r - step * hp
        z = inverse.of(r)
        rz, last = float(r @ z), rz
        p, mp = z + (rz / last) * p, r + (rz / last) * mp
    return x
