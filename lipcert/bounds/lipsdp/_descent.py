r"""Better multipliers for networks that are too large for Newton's method in the time there is: gradients alone.

With Z(lambda) the matrix without its last term and mu_1, ..., mu_m the eigenvalues of G = C Z^-1 C', the bound of these
multipliers is max mu^(1/2). In u = log lambda this minimises

    h(u) = (1 / p) log sum_k mu_k^p,      dh/du_i = -lambda_i sum_k w_k xi_k' B_i xi_k,                        (1)

    w_k = mu_k^(p - 1) / sum_j mu_j^p,    xi_k = Z^-1 C' e_k (e_k the eigenvector),
    xi' B_i xi = 2 (xi_i - alpha_i r_i xi) (xi_i - beta_i r_i xi),

as d mu_k = -xi_k' dZ xi_k. Value and gradient cost one block factorisation: the inverse of Z is not needed, so this is
some eight times cheaper than the gradient of the barrier, and a hundred times cheaper than its Hessian. h grows beyond
all bounds where Z loses its definiteness along what C sees, so L-BFGS (Nocedal 1980) with backtracking stays inside.
p grows as the steps get small: max mu <= exp h <= m^(1/p) max mu.

The largest eigenvalue of G is convex in lambda: there is one minimum, that of `lipsdp`. There is no duality gap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lipcert.bounds.lipsdp._arrays import Array, array, eigen, join, like, to_numpy, zeros
from lipcert.bounds.lipsdp._centre import Inverse
from lipcert.bounds.lipsdp._clock import Clock, TimeUp
from lipcert.bounds.lipsdp._layers import CentredLayers
from lipcert.bounds.lipsdp._path import best_f
from lipcert.bounds.lipsdp._result import LipSdpResult, LipSdpStatus
from lipcert.bounds.lipsdp._system import System
from lipcert.bounds.lipsdp._tridiag import Factor, factorise
from lipcert.bounds.targets import largest_target
from lipcert.errors import InconclusiveError
from lipcert.network.enclosure import Float
from lipcert.proof.inequality import assemble
from lipcert.proof.lifted import Lifted

_POWERS = (8.0, 32.0, 128.0, 512.0)
_MEMORY = 30
_SMALL = 1e-3
"""Of a decrease of h over `_PATIENCE` steps, times 8 / p: then p grows."""
_PATIENCE = 5
_HALVINGS = 12
_SHARES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_LONGEST = 1.0
"""Of a step: no multiplier changes by more than a factor e."""


@dataclass(frozen=True)
class Place:
    """Multipliers lambda = exp(u), h and its gradient there, and the largest eigenvalue."""

    u: Array
    h: float
    slope: Array
    top: float


@dataclass(frozen=True)
class Identity:
    """The first inverse Hessian of L-BFGS: a multiple of the identity."""

    size: float

    def solve(self, rhs: Array) -> Array:
        """The multiple."""
        return self.size * rhs


@dataclass
class Descent:
    """The multipliers of the best bound so far.

    Attributes:
        system: of the lifted form, in units v = scale * w. u: log lambda in them. top: the largest eigenvalue there.
        steps: taken so far.
    """

    system: System
    scale: list[Array]
    u: Array
    top: float = math.inf
    steps: int = 0

    @classmethod
    def at(cls, lifted: Lifted, start: list[Float], clock: Clock, device: str) -> Descent:
        """Stand at some multipliers, in whose units all are 1."""
        scale = [array(part, device) ** -0.5 for part in start]
        system = System.of(lifted, clock, device).rescaled(scale, 1.0)
        f = best_f(system, system.ones(system.neurons))
        return cls(system, scale, zeros((system.neurons,), system.alpha[0]), 1.0 / f if f > 0.0 else math.inf)

    def run(self) -> None:
        """Descend until the time is up or nothing is gained any more."""
        try:
            for power in _POWERS:
                self._descend(power)
        except TimeUp:
            pass

    def _descend(self, power: float) -> None:
        place = self._place(self.u, power)
        inverse, heights = Inverse(Identity(0.1)), [math.inf]
        while place is not None:
            heights.append(place.h)
            if len(heights) > _PATIENCE and heights[-1 - _PATIENCE] - place.h < _SMALL * 8.0 / power:
                return
            new = self._step(place, -inverse.of(place.slope), power)
            if new is None:
                return
            step, change = new.u - place.u, new.slope - place.slope
            if float(step @ change) > 0.0:
                size = float(step @ change) / float(change @ change)
                inverse = Inverse(Identity(size), inverse.pairs[1 - _MEMORY :])
            inverse.learn(step, change)
            place, self.steps = new, self.steps + 1

    def _step(self, place: Place, d: Array, power: float) -> Place | None:
        """A place along d where h is smaller enough, or None."""
        fall = float(place.slope @ d)
        if not fall < 0.0:
            return None
        share = min(1.0, _LONGEST / float(abs(d).max()))
        for _ in range(_HALVINGS):
            new = self._place(place.u + share * d, power)
            if new is not None and new.h <= place.h + 1e-4 * share * fall:
                return new
            share *= 0.4
        return None

    def _place(self, u: Array, power: float) -> Place | None:
        """The place of these multipliers, None where they are outside; keeps the best.

        Raises:
            TimeUp: the system's clock says so.
        """
        system = self.system
        system.clock.check()
        lam = math.e**u
        factor = factorise(system.band(join([lam, zeros((1,), lam)]), 1.0))
        if factor is None:
            return None
        half = factor.half(system.output_groups())
        values, vectors = eigen(half.T @ half)
        top = float(values[-1])
        if not (math.isfinite(top) and top > 0.0):
            return None
        if top < self.top:
            self.u, self.top = u, top
        shares = np.maximum(values / top, 0.0) ** (power - 1.0)
        total = float((shares * values).sum()) / top
        h = math.log(top) + math.log(total) / power
        weights = np.sqrt(shares / (total * top))
        slope = -lam * _forms(system, factor, half @ (vectors * like(weights, half)))
        return Place(u, h, slope, top)


def _forms(system: System, factor: Factor, half: Array) -> Array:
    """sum_k xi_k' B_i xi_k for xi = L'^-1 half, column by column, in the order of y."""
    xi = factor.back(half)
    parts = []
    for k, (row, alpha, beta) in enumerate(zip(system.rows, system.alpha, system.beta, strict=True), start=1):
        own, reads = xi[k], sum(w @ xi[j] for j, w in row.items())
        parts.append(2.0 * ((own - alpha[:, None] * reads) * (own - beta[:, None] * reads)).sum(1))
    return join(parts)


def descend(lifted: Lifted, closed: list[Float], clock: Clock, device: str) -> LipSdpResult:
    """Improve the better of some multipliers and those of `_layers` until the time is up or nothing is gained.

    closed: one positive vector per block, feasible. Memory: that of Z by groups, some four times.

    Raises:
        numpy.linalg.LinAlgError: gains over- or underflow.
    """
    with np.errstate(all="ignore"):  # what is not finite is no place
        inner = CentredLayers(clock).multipliers(lifted)
        best = min((Descent.at(lifted, start, clock, device) for start in (closed, inner)), key=lambda one: one.top)
        best.run()
        parts = zip(best.system.split(math.e**best.u), best.scale, strict=True)
        lam, f = _inside(lifted, [to_numpy(part / unit**2) for part, unit in parts], inner)
    value = f**-0.5 if f > 0.0 else best.top**0.5
    return LipSdpResult(lam, value, 0.0, math.inf, best.steps, clock.seconds, LipSdpStatus.GRADIENTS)


def _inside(lifted: Lifted, found: list[Float], inner: list[Float]) -> tuple[list[Float], float]:
    """Mix multipliers with some well inside, until a proof has the room that it needs; return F too, 0 if none.

    Z may lose its definiteness along what C does not see (one output sees little), for no loss of h. Z is affine in
    lambda, and the bound's square convex.
    """
    for share in _SHARES:
        mixed = [(1.0 - share) * a + share * b for a, b in zip(found, inner, strict=True)]
        try:
            return mixed, largest_target(lifted, assemble(lifted, mixed), 2.0)
        except InconclusiveError:
            continue
    return found, 0.0
