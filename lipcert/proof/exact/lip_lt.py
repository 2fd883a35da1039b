"""The loop-transformation rule in ball arithmetic; see `proof.rules.lip_lt` for the theorem and the witness.

Radii of the weights are kept as a spread in the l2 norm, as there; the rounding of the compositions is the balls' own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from flint import arb, ctx

from lipcert.network.enclosure import Float
from lipcert.network.graph import Network
from lipcert.proof.certificate import Witness
from lipcert.proof.claims import Norm
from lipcert.proof.exact.balls import Ball, Balls, Matrix, absolute, largest, scale_rows, upper
from lipcert.proof.exact.definite import PRECISIONS
from lipcert.proof.exact.multipliers import Form, Rows
from lipcert.proof.exact.norms import require_at_most
from lipcert.proof.lifted import lift
from lipcert.proof.refusal import Refused
from lipcert.proof.rules.base import Derivation, Rule
from lipcert.proof.rules.lip_lt import LoopTransformation, read_centres


@dataclass(frozen=True, eq=False)
class Composed:
    """A composed map A_kj: ||A_kj - matrix|| <= spread."""

    matrix: Balls
    spread: Ball

    @staticmethod
    def of(matrix: Matrix) -> Composed:
        """Turn radii into a spread."""
        return Composed(matrix.mid, arb(0) if matrix.rad is None else _norm_of_sizes(matrix.rad))

    def behind(self, step: Matrix, size: Ball) -> Composed:
        """Return S A for a step with ||S|| <= size."""
        extra = arb(0) if step.rad is None else _norm_of_sizes(step.rad * absolute(self.matrix))
        return Composed(step.mid * self.matrix, size * self.spread + extra)

    def plus(self, other: Composed) -> Composed:
        """Return the sum of two maps."""
        return Composed(self.matrix + other.matrix, self.spread + other.spread)

    def scaled(self, factors: list[Ball]) -> Composed:
        """Return A P with P = diag(factors) >= 0."""
        return Composed(_columns(self.matrix, factors), self.spread * largest(factors))


class ExactLoopTransformation(Rule):
    """Norms of composed affine maps around free centres of the activations."""

    id: ClassVar[str] = LoopTransformation.id
    norms: ClassVar[frozenset[Norm]] = LoopTransformation.norms

    def prove(self, network: Network, norm: Norm, witness: Witness) -> Derivation:
        """Derive the bound; cost for l layers: l^2 / 2 matrix products and as many eliminations."""
        lifted = lift(network)
        centres, claims = read_centres(lifted, witness)
        with ctx.workprec(PRECISIONS[-1]):
            bound = _bound(Form.of(lifted), centres, claims)
        if next(claims, None) is not None:
            raise Refused("the witness has more norms than the network needs")
        return Derivation(upper(bound))


def _bound(form: Form, centres: list[Float], claims: Iterator[float]) -> Ball:
    """Return the bound; norms are taken from the claims in the order of `rules.lip_lt.loop_bound`."""
    middles = [[arb(m) for m in centre.tolist()] for centre in centres]
    radii = [[arb(1)] * form.inputs]
    for (alpha, beta), middle in zip(form.slopes, middles, strict=True):
        sides = zip(alpha.tolist(), beta.tolist(), middle, strict=True)
        radii.append([largest([abs(arb(a) - m), abs(arb(b) - m)]) for a, b, m in sides])
    gains = [arb(1)]
    paths: dict[int, dict[int, Composed]] = {}
    for k, row in enumerate([*form.rows, form.output], start=1):
        paths[k] = _compose(row, paths, middles, claims)
        terms = [_proved(path.scaled(radii[j]), claims) * gains[j] for j, path in sorted(paths[k].items())]
        gains.append(sum(terms, arb(0)))
    return gains[-1]


def _compose(
    row: Rows, paths: dict[int, dict[int, Composed]], middles: list[list[Ball]], claims: Iterator[float]
) -> dict[int, Composed]:
    """Return A_kj of one row for all j that it reaches."""
    found = {j: Composed.of(matrix) for j, matrix in row.items()}
    for i, matrix in sorted(row.items()):
        if i == 0 or all(m.is_zero() for m in middles[i - 1]):
            continue
        middle = middles[i - 1]
        rad = None if matrix.rad is None else _columns(matrix.rad, [abs(m) for m in middle])
        step = Matrix(_columns(matrix.mid, middle), rad)
        size = _proved(Composed.of(step), claims)
        for j, path in paths[i].items():
            term = path.behind(step, size)
            found[j] = found[j].plus(term) if j in found else term
    return found


def _proved(path: Composed, claims: Iterator[float]) -> Ball:
    """Return the next claim, proved of every matrix within the spread."""
    claim = next(claims, None)
    if claim is None:
        raise Refused("the witness has fewer norms than the network needs")
    require_at_most(path.matrix, arb(claim) - path.spread, f"a norm of a composed map at most {claim!r}")
    return arb(claim)


def _norm_of_sizes(matrix: Balls) -> Ball:
    """Return a bound of ||A||_2 for A >= 0: ||A||_2^2 <= ||A||_1 ||A||_inf."""
    rows, columns = (largest(sum(row, arb(0)) for row in m.tolist()) for m in (matrix, matrix.transpose()))
    return (rows * columns).sqrt()


def _columns(matrix: Balls, factors: list[Ball]) -> Balls:
    return scale_rows(matrix.transpose(), factors).transpose()
