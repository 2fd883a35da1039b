r"""`eclipse`: one multiplier per neuron, layer by layer, each layer by one small semidefinite program.

A layer hands on P(D) = M (S + S R K^-1 R S) M + D, K = D - R S R > 0, D = diag(1 / (2 lambda)) (`chain.propagate`).
With V the weights behind it, V P V' enters the next layer. D is chosen to make that small:

    minimise t + w tr(Y) / rows   subject to   V P(D) V' <= Y <= t I,   K > 0

By Schur complement, V P(D) V' <= Y if and only if, for K > 0,

    [ Y - V (M S M + D) V'    V M S R   ]
    [ R S M V'                D - R S R ]   >= 0,

linear in (Y, D), of side n + rows: a V with more than n rows is replaced by the triangle of its QR factors. S and V are
scaled to norms near 1 by powers of two.

With w = 0 it is the program of the source, maximise c with X - c V'V >= 0 for X = P^-1 and c = 1 / t, written for
general slopes and in the inverse multipliers. The last layer has w = 0: there t is the bound's square. The
others have w = 1, the mean of the eigenvalues beside the largest: what the next layer makes of the others
counts too (measured, slopes [0, 1]: mlp_L3_W16 5.94 instead of 6.28, mlp_L5_W16 17.3 instead of 18.2).

The solver's D is moved a little towards the closed form of `eclipse-fast` until K is positive definite, and taken only
if the objective then is smaller than with the closed form. Small layers do not make a small end: where the closed
form of all layers is better as a whole, it is proposed instead. The notes say both.

Source: ECLipsE, Xu & Sivaranjani, NeurIPS 2024, for slopes [0, 1].
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from lipcert.bounds.chain import ROOM, Chain, chain_of, layer_gain, obstacle, propagate
from lipcert.bounds.conic import Attempt, ask, solvers_for, triangle
from lipcert.bounds.eclipse_fast import EclipseFast
from lipcert.bounds.method import Method, Proposal, Solver
from lipcert.bounds.targets import forms, propose_target, provable_target
from lipcert.errors import InconclusiveError
from lipcert.network.enclosure import Float
from lipcert.network.graph import Network
from lipcert.proof.claims import Norm
from lipcert.proof.rules.multipliers import Multipliers

WIDEST = 600  # neurons of one layer: its program has a matrix of up to twice this side
MIXES = (0.0, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)  # shares of the closed form, tried in turn


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer's program: S, V and w of the text above, the slopes in between."""

    gain: Float
    behind: Float
    alpha: Float
    beta: Float
    mean: float

    def size(self, inverse: Float) -> float:
        """Return the objective for Y = V P(D) V', or infinity where K is not positive definite."""
        r = 0.5 * (self.beta - self.alpha)
        try:
            np.linalg.cholesky(np.diag(inverse) - r[:, None] * self.gain * r)
            state = propagate(self.gain, inverse, self.alpha, self.beta)
            values = np.linalg.eigvalsh(self.behind @ state @ self.behind.T)
        except np.linalg.LinAlgError:
            return math.inf
        found = float(values[-1] + self.mean * values.mean())
        return found if math.isfinite(found) else math.inf


class Eclipse(Method):
    """Layer by layer, one small semidefinite program each."""

    name: ClassVar[str] = "eclipse"
    summary: ClassVar[str] = "one multiplier per neuron, one small semidefinite program per layer (ECLipsE)"
    norms: ClassVar[frozenset[Norm]] = Multipliers.norms
    cost: ClassVar[str] = "one semidefinite program of side 2 n per layer, through CVXPY (Clarabel, SCS)"

    def refuses(self, network: Network, norm: Norm) -> str | None:
        """Return why the network is not a chain of affordable widths, or None."""
        widest = max((node.size for _, node in network.activation_nodes()), default=0)
        if widest > WIDEST:
            return f"a layer of {widest} neurons needs too large a semidefinite program ({WIDEST} at most)"
        return obstacle(network)

    def propose(self, network: Network, norm: Norm, time_limit: float | None) -> Proposal:
        """Propose multipliers; layers for which no time is left get the closed form, and the notes say so."""
        lifted, form = forms(network)
        chain = chain_of(lifted)
        end = math.inf if time_limit is None else time.monotonic() + time_limit
        with np.errstate(all="ignore"):  # what is not finite is refused by the rule
            try:
                plain = EclipseFast().multipliers(lifted)
                found, solver, notes = _walk(chain, end)
            except np.linalg.LinAlgError:
                raise InconclusiveError("the layers' gains over- or underflow float64") from None
            target, closed = provable_target(form, found), provable_target(form, plain)
            if closed > target:
                notes = (*notes, "as a whole the closed form of 'eclipse-fast' is better: it was taken")
                return propose_target(plain, closed, solver, notes)
            return propose_target(found, target, solver, notes)


def _walk(chain: Chain, end: float) -> tuple[list[Float], Solver | None, tuple[str, ...]]:
    state = np.eye(chain.weights[0].shape[1])
    multipliers: list[Float] = []
    said: list[str] = []
    notes: list[str] = []
    behind = [*chain.weights[1:], chain.last]
    for k, (weight, alpha, beta) in enumerate(zip(chain.weights, chain.alpha, chain.beta, strict=True)):
        left = len(behind) - k
        layer = Layer(layer_gain(state, weight), behind[k], alpha, beta, mean=1.0 if left > 1 else 0.0)
        inverse, attempt, note = choose(layer, (end - time.monotonic()) / left)
        if attempt is not None and attempt.solver is not None:
            said.append(f"{attempt.solver} {attempt.status}")
        if note is not None:
            notes.append(f"layer {k + 1} of {len(behind)}: {note}")
        state = propagate(layer.gain, inverse, alpha, beta)
        multipliers.append(0.5 / inverse)
    words = ", ".join(f"{said.count(word)} x {word}" for word in dict.fromkeys(said))
    return multipliers, Solver("cvxpy, layer by layer", words) if said else None, tuple(notes)


def choose(layer: Layer, seconds: float) -> tuple[Float, Attempt | None, str | None]:
    """Return one layer's 1 / (2 lambda), what the solvers said, and a note where the closed form had to do."""
    plain = EclipseFast().layer(layer.gain, layer.alpha, layer.beta)
    unit, behind_unit = (_power(float(np.abs(part).max(initial=0.0))) for part in (layer.gain, layer.behind))
    if unit is None or behind_unit is None:
        return plain, None, None  # nothing enters or leaves this layer: there is nothing to choose
    behind = layer.behind if len(layer.behind) <= len(layer.gain) else np.linalg.qr(layer.behind, mode="r")
    scaled = replace(layer, gain=np.ldexp(layer.gain, -unit), behind=np.ldexp(behind, -behind_unit))
    attempt, found = _solve(scaled, seconds)
    if found is None:
        return plain, attempt, f"the closed form of 'eclipse-fast' was taken ({'; '.join(attempt.failures)})"
    closed = np.ldexp(plain, -unit)
    found = np.maximum(found, ROOM * float(closed.max()))
    best = min(((1.0 - share) * found + share * closed for share in MIXES), key=scaled.size)
    if scaled.size(best) < scaled.size(closed):
        return np.ldexp(best, unit), attempt, None
    return plain, attempt, f"the closed form of 'eclipse-fast' was taken ({attempt.solver} found no better one)"


def _power(largest: float) -> int | None:
    """Return the exponent e of 2^e just above a positive number, or None for 0 and what is not finite."""
    return math.frexp(largest)[1] if math.isfinite(largest) and largest > 0 else None


def _solve(layer: Layer, seconds: float) -> tuple[Attempt, Float | None]:
    """Return what the solvers said, and D where one of them left numbers."""
    import cvxpy as cp

    n, rows = len(layer.gain), len(layer.behind)
    m, r = 0.5 * (layer.alpha + layer.beta), 0.5 * (layer.beta - layer.alpha)
    inverse, top, ceiling = cp.Variable(n, nonneg=True), cp.Variable(), cp.Variable((rows, rows), symmetric=True)
    centre = layer.behind @ (m[:, None] * layer.gain * m) @ layer.behind.T
    corner = layer.behind @ (m[:, None] * layer.gain * r)
    # V diag(D) V' as a linear map of D: column i is the outer product of V's column i with itself
    outer = (layer.behind[:, None, :] * layer.behind[None, :, :]).reshape(rows * rows, n)
    spread = cp.reshape(outer @ inverse, (rows, rows), order="C")
    inner = cp.diag(inverse) - r[:, None] * layer.gain * r
    matrix = cp.bmat([[ceiling - 0.5 * (centre + centre.T) - spread, corner], [corner.T, inner]])
    objective = cp.Minimize(top + layer.mean * cp.trace(ceiling) / rows)
    problem = cp.Problem(objective, [matrix >> 0, top * np.eye(rows) - ceiling >> 0])
    attempt = ask(problem, solvers_for(triangle(n + rows), with_mosek=False), seconds)
    if attempt.solver is None:
        return attempt, None
    return attempt, np.asarray(inverse.value, dtype=np.float64).ravel()
