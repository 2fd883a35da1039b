r"""The multiplier rule in ball arithmetic; see `proof.rules.multipliers` for the theorem and the witness.

The centre of Z is assembled anew from the rows of the lifted form. With the radii r_ij of the entries of Z, the
diagonal is lowered by t_i = sum_j r_ij s_j / s_i, which covers every matrix within them (see `proof.inequality`, whose
powers of two s_i are used too), and what remains is proved positive definite by elimination.

The sums r s need no matrix of radii. In a term R' D R, with R = R^ within r_R and D an exact diagonal, the radius is
|R^|' |D| r_R + r_R' |D| |R^| + r_R' |D| r_R, so its product with s is (|R^| + r_R)' |D| (r_R s) + r_R' |D| (|R^| s).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from flint import arb, arb_mat, ctx

from lipcert.network.enclosure import Float
from lipcert.network.graph import Network
from lipcert.proof.certificate import Witness
from lipcert.proof.claims import Norm
from lipcert.proof.exact.balls import Ball, Balls, Matrix, absolute, diagonal, scale_rows, upper
from lipcert.proof.exact.definite import PRECISIONS, is_definite
from lipcert.proof.lifted import Lifted, lift
from lipcert.proof.linear_neurons import without_linear
from lipcert.proof.refusal import Refused
from lipcert.proof.rules.base import Derivation, Rule
from lipcert.proof.rules.multipliers import Multipliers, read_witness

Blocks = dict[tuple[int, int], Balls]
Columns = list[Balls]  # one (n_i, 1) vector for each block
Rows = dict[int, Matrix]


class ExactMultipliers(Rule):
    """One non-negative multiplier per neuron; the inequality by ball elimination."""

    id: ClassVar[str] = Multipliers.id
    norms: ClassVar[frozenset[Norm]] = Multipliers.norms

    def prove(self, network: Network, norm: Norm, witness: Witness) -> Derivation:
        """Derive F^(-1/2), rounded up, if the matrix inequality holds at F."""
        lifted = without_linear(lift(network))
        multipliers, target = read_witness(lifted, witness)
        require_inequality(Form.of(lifted), multipliers, target)
        return Derivation(upper(bound_of(target)))


def bound_of(target: float) -> Ball:
    """Return F^(-1/2)."""
    with ctx.workprec(PRECISIONS[-1]):
        return (1 / arb(target)).sqrt()


@dataclass(frozen=True, eq=False)
class Form:
    """A lifted form in balls.

    Attributes:
        inputs: entries of the input, block 0. slopes: alpha and beta of blocks 1, 2, ...
        rows: of their pre-activations. output: of y, possibly none.
    """

    inputs: int
    slopes: list[tuple[Float, Float]]
    rows: list[Rows]
    output: Rows

    @staticmethod
    def of(lifted: Lifted) -> Form:
        """Return the same form: every float64 is a ball of radius zero."""
        slopes = [(block.alpha, block.beta) for block in lifted.blocks]
        rows = [{j: Matrix.of(numbers) for j, numbers in block.row.items()} for block in lifted.blocks]
        return Form(lifted.inputs, slopes, rows, {j: Matrix.of(numbers) for j, numbers in lifted.output.items()})


def require_inequality(form: Form | Callable[[], Form], multipliers: list[Float], target: float) -> None:
    """Return if Z(multipliers, target) > 0 for all matrices within the radii.

    form: or what makes it at flint's working precision.

    Raises:
        Refused: it is not, or has no room to show it.
    """

    def build() -> Blocks:
        made = form if isinstance(form, Form) else form()
        return lowered(made.inputs, [*terms(made, multipliers), *output_term(made, target)])

    if not is_definite(build):
        raise Refused("the matrix inequality does not hold with these multipliers, or has no room to show it")


@dataclass(frozen=True, eq=False)
class Term:
    """One block row R of the lifted form and what it adds to Z.

    Attributes:
        block: k, the block that the row belongs to, or None where the term has no such block.
        rows: R_kj by block j.
        squared: D of R' D R. linear: D of E_k' D R + R' D E_k. own: A of E_k' A E_k. Without a block the last two are
            not there.
    """

    block: int | None
    rows: Rows
    squared: list[Ball]
    linear: list[Ball]
    own: Balls | None


def terms(form: Form, multipliers: list[Float]) -> list[Term]:
    """Return the terms of the neurons; coefficients at flint's working precision."""
    found = []
    for k, (rows, slopes, values) in enumerate(zip(form.rows, form.slopes, multipliers, strict=True), start=1):
        weights, alpha, beta = ([arb(x) for x in side.tolist()] for side in (values, *slopes))
        triples = list(zip(weights, alpha, beta, strict=True))
        squared, linear = [2 * w * a * b for w, a, b in triples], [-w * (a + b) for w, a, b in triples]
        found.append(Term(k, rows, squared, linear, diagonal([2 * w for w in weights])))
    return found


def output_term(form: Form, target: float) -> list[Term]:
    """Return -F C'C, or nothing where there is no output."""
    if not form.output:
        return []
    count = next(iter(form.output.values())).shape[0]
    return [Term(None, form.output, [-arb(target)] * count, [], None)]


def lowered(inputs: int, parts: list[Term]) -> Blocks:
    """Return the centre of |dx|^2 and all terms, with t_i taken off its diagonal."""
    blocks: Blocks = {(0, 0): diagonal([arb(1)] * inputs)}
    for part in parts:
        _add_centre(blocks, part)
    if any(matrix.rad is not None for part in parts for matrix in part.rows.values()):
        sides = [_sides(blocks[k, k]) for k in range(1 + max(i for i, _ in blocks))]
        for k, sums in enumerate(_spread(parts, sides)):
            t = [x / s for x, s in zip(sums.entries(), sides[k].entries(), strict=True)]
            blocks[k, k] = blocks[k, k] - diagonal(t)
    return blocks


def _add_centre(blocks: Blocks, part: Term) -> None:
    if part.block is not None:
        _add(blocks, part.block, part.block, part.own)
        for j, matrix in part.rows.items():
            _add(blocks, part.block, j, scale_rows(matrix.mid, part.linear))
    if all(x.is_zero() for x in part.squared):
        return
    for j, matrix in part.rows.items():
        right = scale_rows(matrix.mid, part.squared)
        for i, other in part.rows.items():
            if i >= j:
                _add(blocks, i, j, other.mid.transpose() * right)


def _add(blocks: Blocks, i: int, j: int, term: Balls) -> None:
    blocks[i, j] = blocks[i, j] + term if (i, j) in blocks else term


def _spread(parts: list[Term], sides: Columns) -> Columns:
    """Return sum_j r_ij s_j for every row i of Z, r the radii of its entries."""
    totals = [0 * side for side in sides]
    for part in parts:
        radii = {j: matrix.rad for j, matrix in part.rows.items() if matrix.rad is not None}
        if not radii:
            continue
        nothing = arb_mat(len(part.squared), 1)
        loose = sum((rad * sides[j] for j, rad in radii.items()), nothing)
        fixed = sum((absolute(matrix.mid) * sides[j] for j, matrix in part.rows.items()), nothing)
        square, line = [abs(x) for x in part.squared], [abs(x) for x in part.linear]
        for i, matrix in part.rows.items():
            totals[i] += matrix.magnitude().transpose() * scale_rows(loose, square)
        for i, rad in radii.items():
            totals[i] += rad.transpose() * scale_rows(fixed, square)
        if part.block is not None:
            totals[part.block] += scale_rows(loose, line)
            for j, rad in radii.items():
                totals[j] += rad.transpose() * scale_rows(sides[part.block], line)
    return totals


def _sides(matrix: Balls) -> Balls:
    """Return powers of two near Z_ii^(-1/2); any positive numbers would do."""
    entries = [float(matrix[i, i].mid()) for i in range(matrix.nrows())]
    usable = [x if math.isfinite(x) and x > 0 else 1.0 for x in entries]
    return arb_mat(len(usable), 1, [2.0 ** -(math.frexp(x)[1] // 2) for x in usable])
