"""Centring a start: from any interior point to the central path.

Newton's method with a Hessian for every step spends nearly all its time on Hessians: on a chain of 63 layers of 64
neurons one costs as much as sixty gradients. So each is used for up to fifteen steps, corrected by what the gradients
show of its change: L-BFGS (Nocedal 1980) with the last factorised Hessian where it usually has a multiple of one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from lipcert.bounds.lipsdp._arrays import Array, copy
from lipcert.bounds.lipsdp._barrier import factor_at, gradient, hessian
from lipcert.bounds.lipsdp._clock import TimeUp
from lipcert.bounds.lipsdp._newton import largest_step
from lipcert.bounds.lipsdp._schur import Schur
from lipcert.bounds.lipsdp._system import System
from lipcert.bounds.lipsdp._tridiag import Factor

CENTRED = 0.3
_BACK_OFF = 0.7
_CAP = 8.0
_MAX_HESSIANS = 40
_REUSE = 15
_SHORT = 0.15
"""A step of less than this share of d asks for a new Hessian."""


class Aim(Protocol):
    """What is added to the barrier: minus an increasing function of F."""

    def slope(self, f: float) -> float:
        """Its derivative."""

    def curvature(self, f: float) -> float:
        """Minus its second derivative."""


@dataclass(frozen=True)
class Logarithm:
    """kappa log F: the point of the central path with mu = F / kappa.

    It is indifferent to the unit of F, which at the start is known to within orders of magnitude only.
    """

    kappa: float

    def slope(self, f: float) -> float:
        """kappa / F."""
        return self.kappa / f

    def curvature(self, f: float) -> float:
        """kappa / F^2."""
        return self.kappa / f**2


@dataclass(frozen=True)
class Linear:
    """t F: the point of the central path with mu = 1 / t."""

    t: float

    def slope(self, _: float) -> float:
        """The derivative."""
        return self.t

    def curvature(self, _: float) -> float:
        """None."""
        return 0.0


class Solves(Protocol):
    """A positive definite matrix, as far as systems with it are solved."""

    def solve(self, rhs: Array) -> Array:
        """Its inverse times one vector."""


@dataclass(frozen=True)
class Inverse:
    """About the inverse Hessian: that of one point, and the secant pairs (s, y, 1 / s'y) since then."""

    schur: Solves
    pairs: list[tuple[Array, Array, float]] = field(default_factory=list)

    def learn(self, step: Array, change: Array) -> None:
        """The gradient changed by so much over this step."""
        curvature = float(step @ change)
        if curvature > 0.0:
            self.pairs.append((step, change, 1.0 / curvature))

    def of(self, rhs: Array) -> Array:
        """The inverse times one vector: the two loops of L-BFGS."""
        rest, shares = copy(rhs), []
        for step, change, weight in reversed(self.pairs):
            shares.append(weight * float(step @ rest))
            rest -= shares[-1] * change
        result = self.schur.solve(rest)
        for (step, change, weight), share in zip(self.pairs, reversed(shares), strict=True):
            result += (share - weight * float(change @ result)) * step
        return result


@dataclass(frozen=True)
class Point:
    """A strictly feasible y with the gradient there of the barrier and its aim."""

    y: Array
    factor: Factor
    g: Array

    @classmethod
    def of(cls, system: System, y: Array, aim: Aim) -> Point | None:
        """The point, or None where y is not strictly feasible or F not positive."""
        f = float(y[-1])
        factor = factor_at(system, y) if f > 0.0 else None
        if factor is None:
            return None
        g = gradient(system, y, factor)
        g[-1] -= aim.slope(f)
        return cls(y, factor, g)


def centre(system: System, y: Array, aim: Aim, enough: float = CENTRED) -> tuple[Array, int]:
    """From any interior y with F > 0 to where phi(y) minus the aim is smallest; also the number of Hessians."""
    last, hessians = y, 0
    try:
        for last, hessians in _walk(system, y, aim, enough):  # noqa: B007
            pass
    except TimeUp:
        pass
    return last, hessians


def _walk(system: System, y: Array, aim: Aim, enough: float) -> Iterator[tuple[Array, int]]:
    """Better and better points, with the number of Hessians so far."""
    point = Point.of(system, y, aim)
    for hessians in range(1, _MAX_HESSIANS + 1):
        schur = None if point is None else _schur(system, point, aim)
        if point is None or schur is None:
            return
        start, size = point, math.inf
        for point, size in approach(system, start, Inverse(schur), aim):
            yield point.y, hessians
            if size < enough:
                return
        if size == math.inf:
            return


def _schur(system: System, point: Point, aim: Aim) -> Schur | None:
    """The factorised Hessian of phi(y) minus the aim."""
    h = hessian(system, point.y, point.factor)
    h[-1, -1] += aim.curvature(float(point.y[-1]))
    return Schur.of(h)


def approach(system: System, point: Point, inverse: Inverse, aim: Aim) -> Iterator[tuple[Point, float]]:
    """Secant steps with one Hessian while they get somewhere, each with the decrement before it; `inverse` learns."""
    for _ in range(_REUSE):
        d = -inverse.of(point.g)
        decrement = math.sqrt(max(-float(point.g @ d), 0.0))
        new = _search(system, point, d, aim)
        if new is None:
            return
        step = new.y - point.y
        inverse.learn(step, new.g - point.g)
        point = new
        yield point, decrement
        if float(step @ d) < _SHORT * float(d @ d):
            return


def _search(system: System, start: Point, d: Array, aim: Aim) -> Point | None:
    """A point along d, roughly where the function is smallest; None where there is no way on.

    A line search to the very minimum along d would run into the boundary and stay there (decrement stuck at sqrt 2):
    at most 0.7 of the way.
    """
    steepest = -float(start.g @ d)
    if not steepest > 0.0:
        return None
    whole = Point.of(system, start.y + d, aim)
    if whole is not None and abs(float(whole.g @ d)) <= 0.5 * steepest:
        return whole
    high = _BACK_OFF * largest_step(system, start.y, d, 1.0 if whole is None else _CAP, fine=3)
    best = Point.of(system, start.y + high * d, aim)
    if best is not None and float(best.g @ d) <= 0.0:
        return best if high > 0.0 else None
    low, best = 0.0, None
    for _ in range(5):
        middle = 0.5 * (low + high)
        point = Point.of(system, start.y + middle * d, aim)
        slope = math.inf if point is None else float(point.g @ d)
        best = point or best
        if abs(slope) <= 0.3 * steepest:
            break
        low, high = (middle, high) if slope <= 0.0 else (low, middle)
    return best
