"""The directions rule in ball arithmetic; see `proof.rules.directions` for the theorem and the witness."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from flint import arb, ctx

from lipcert.network.enclosure import Float
from lipcert.network.graph import Network
from lipcert.proof.certificate import Witness
from lipcert.proof.claims import Norm
from lipcert.proof.exact.balls import Ball, balls, upper
from lipcert.proof.exact.definite import PRECISIONS, is_definite
from lipcert.proof.exact.multipliers import Blocks, Form, Term, bound_of, lowered, require_inequality, terms
from lipcert.proof.lifted import Lifted, lift
from lipcert.proof.linear_neurons import without_linear
from lipcert.proof.refusal import Refused
from lipcert.proof.rules.base import Derivation, Rule
from lipcert.proof.rules.directions import Directions, read_sets, towards
from lipcert.proof.rules.multipliers import read_witness


class ExactDirections(Rule):
    """Multipliers for the whole output with a matrix Q, and further ones for single pairs of outputs."""

    id: ClassVar[str] = Directions.id
    norms: ClassVar[frozenset[Norm]] = Directions.norms

    def prove(self, network: Network, norm: Norm, witness: Witness) -> Derivation:
        """Derive a bound of the whole output and of all margins; cost: 2 + k eliminations."""
        lifted = without_linear(lift(network))
        sets, gram, pairs = read_sets(lifted, witness)
        multipliers, bound = _proved(lifted, sets[0])
        _require_gram(Form.of(lifted), multipliers, gram)
        with ctx.workprec(PRECISIONS[-1]):
            widest = upper(arb(2).sqrt() * bound)
            margins = np.minimum(_gram_margins(gram), widest)
        np.fill_diagonal(margins, 0.0)
        for (i, j), part in zip(pairs, sets[1:], strict=True):
            own = upper(_proved(towards(lifted, (i, j)), part)[1])
            margins[i, j] = margins[j, i] = min(margins[i, j], own)
        return Derivation(upper(bound), margins=margins)


def _proved(lifted: Lifted, part: Witness) -> tuple[list[Float], Ball]:
    multipliers, target = read_witness(lifted, part)
    require_inequality(Form.of(lifted), multipliers, target)
    return multipliers, bound_of(target)


def _require_gram(form: Form, multipliers: list[Float], gram: Float) -> None:
    """Return if [[Z0, C'], [C, Q]] > 0: C is the row of one more block whose own matrix is Q."""

    def build() -> Blocks:
        count = len(gram)
        last = Term(len(form.rows) + 1, form.output, [arb(0)] * count, [arb(1)] * count, balls(gram))
        return lowered(form.inputs, [*terms(form, multipliers), last])

    if not is_definite(build):
        raise Refused("the matrix of the directions is not positive definite, or has no room to show it")


def _gram_margins(gram: Float) -> Float:
    """Return sqrt(Q_ii + Q_jj - 2 Q_ij) for all i and j, rounded up."""
    q = balls(gram).tolist()

    def margin(i: int, j: int) -> float:
        square = q[i][i] + q[j][j] - 2 * q[i][j]
        return upper(square.sqrt()) if square > 0 else 0.0

    return np.array([[margin(i, j) for j in range(len(q))] for i in range(len(q))])
