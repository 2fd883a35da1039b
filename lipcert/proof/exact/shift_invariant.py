"""The shift-invariant rule in ball arithmetic; see `proof.rules.shift_invariant` for the theorem and the witness.

The symbols are summed anew at each frequency, with cosines and sines of rational turns by Arb.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import product
from typing import ClassVar

import numpy as np
from flint import arb, arb_mat, fmpq

from lipcert.network.enclosure import Enclosure
from lipcert.network.graph import Network
from lipcert.proof.certificate import Witness
from lipcert.proof.claims import Norm
from lipcert.proof.embedding import embed
from lipcert.proof.exact.balls import Ball, Balls, Matrix, balls, upper
from lipcert.proof.exact.multipliers import Form, bound_of, require_inequality
from lipcert.proof.refusal import TooLarge
from lipcert.proof.rules.base import Derivation, Rule
from lipcert.proof.rules.multipliers import read_witness
from lipcert.proof.rules.shift_invariant import ShiftInvariant
from lipcert.proof.torus import Stencil, Torus, zero_piece

MAX_WORK = 2**28  # frequencies times the cubes of twice the channels

Frequency = tuple[Fraction, ...]  # in turns, one entry per axis


class ExactShiftInvariant(Rule):
    """One non-negative multiplier per channel; the inequality of each frequency by ball elimination."""

    id: ClassVar[str] = ShiftInvariant.id
    norms: ClassVar[frozenset[Norm]] = ShiftInvariant.norms

    def prove(self, network: Network, norm: Norm, witness: Witness) -> Derivation:
        """Derive F^(-1/2), rounded up, if the inequalities of all frequencies hold at F."""
        torus = embed(network)
        pairs = torus.frequencies.T.tolist()
        if len(pairs) * sum((2 * n) ** 3 for n in torus.channels) > MAX_WORK:
            raise TooLarge(f"{len(pairs)} frequencies of {torus.channels} channels are too many for the exact engine")
        multipliers, target = read_witness(zero_piece(torus), witness)
        require_inequality(partial(_at_zero, torus), multipliers, target)
        doubled = [np.tile(values, 2) for values in multipliers[: len(torus.layers)]]
        for pair in pairs[1:]:
            turn = tuple(Fraction(w, n) for w, n in zip(pair, torus.grid, strict=True))
            require_inequality(partial(_elsewhere, torus, turn), doubled, target)
        return Derivation(upper(bound_of(target)))


def _at_zero(torus: Torus) -> Form:
    """Return the form at w = 0: the layers' symbols anew, the tail as it is."""
    whole = Form.of(zero_piece(torus))
    zero = (Fraction(0),) * len(torus.grid)
    rows = [{k: _symbol(layer.stencil, zero)} for k, layer in enumerate(torus.layers)]
    output = whole.output
    if torus.closing is not None:
        output = {len(torus.layers): _symbol(torus.closing, zero)}
    return Form(whole.inputs, whole.slopes, [*rows, *whole.rows[len(rows) :]], output)


def _elsewhere(torus: Torus, turn: Frequency) -> Form:
    """Return the real form at another frequency; it has no output where there is a tail."""
    slopes = [(np.tile(layer.alpha, 2), np.tile(layer.beta, 2)) for layer in torus.layers]
    rows = [{k: _real_form(layer.stencil, turn)} for k, layer in enumerate(torus.layers)]
    output = {}
    if torus.tail is None:
        closing, width = torus.closing, 2 * torus.channels[-1]
        output = {len(rows): Matrix(balls(np.eye(width))) if closing is None else _real_form(closing, turn)}
    return Form(2 * torus.channels[0], slopes, rows, output)


def _symbol(stencil: Stencil, turn: Frequency) -> Matrix:
    """Return the real part of the symbol, all there is at w = 0."""
    return Matrix(_part(stencil, [arb.cos_pi_fmpq(angle) for angle in _angles(stencil, turn)]), _radius(stencil))


def _real_form(stencil: Stencil, turn: Frequency) -> Matrix:
    """Return [[A, -B], [B, A]] of the symbol A + iB."""
    angles = _angles(stencil, turn)
    real = _part(stencil, [arb.cos_pi_fmpq(angle) for angle in angles])
    imaginary = _part(stencil, [arb.sin_pi_fmpq(angle) for angle in angles])
    radius = _radius(stencil)
    return Matrix(
        _blocks(real, -imaginary, imaginary, real), None if radius is None else _blocks(radius, radius, radius, radius)
    )


def _angles(stencil: Stencil, turn: Frequency) -> list[fmpq]:
    """Return 2 w.shift of each tap, in units of pi."""
    sums = (sum((w * a for w, a in zip(turn, shift, strict=True)), Fraction(0)) for shift in product(*stencil.shifts))
    return [fmpq(2 * total.numerator, total.denominator) for total in sums]


def _part(stencil: Stencil, factors: list[Ball]) -> Balls:
    """Return the sum over taps of W_tap times a factor."""
    out, inner = stencil.channels
    total = arb_mat(out, inner)
    for tap, factor in enumerate(factors):
        total = total + balls(np.ascontiguousarray(stencil.weight.mid[:, :, tap])) * factor
    return total


def _radius(stencil: Stencil) -> Balls | None:
    """Return a bound of the radius of both parts: the sum of the taps' radii."""
    if stencil.weight.rad is None:
        return None
    one = arb(1)
    return _part(replace(stencil, weight=Enclosure(stencil.weight.rad)), [one] * stencil.weight.shape[2])


def _blocks(a: Balls, b: Balls, c: Balls, d: Balls) -> Balls:
    upper_rows = [left + right for left, right in zip(a.tolist(), b.tolist(), strict=True)]
    return arb_mat(upper_rows + [left + right for left, right in zip(c.tolist(), d.tolist(), strict=True)])
