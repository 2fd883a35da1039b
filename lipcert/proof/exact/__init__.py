"""The second engine of the checker: the same rules in ball arithmetic, by python-flint.

It shares with the float64 engine what is to be proved (the network as read, its normal and lifted form, the theorems,
the reading of the witness) and none of the arithmetic that proves it. For small to medium sizes; beyond them a rule
refuses in one line. Needs the extra ``exact``.
"""

from __future__ import annotations

from collections.abc import Mapping

from lipcert.proof.exact.absolute import ExactAbsolute
from lipcert.proof.exact.directions import ExactDirections
from lipcert.proof.exact.lip_lt import ExactLoopTransformation
from lipcert.proof.exact.multipliers import ExactMultipliers
from lipcert.proof.exact.product import ExactProduct
from lipcert.proof.exact.shift_invariant import ExactShiftInvariant
from lipcert.proof.rules.absolute_margins import AbsoluteMargins
from lipcert.proof.rules.base import Rule
from lipcert.proof.rules.stretches import Stretches

WHOLE: Mapping[str, Rule] = {
    rule.id: rule
    for rule in (ExactProduct(), ExactAbsolute(), ExactMultipliers(), ExactLoopTransformation(), ExactShiftInvariant())
}
OF_MARGINS: Mapping[str, Rule] = {rule.id: rule for rule in (ExactDirections(), AbsoluteMargins(ExactAbsolute()))}
RULES: Mapping[str, Rule] = {**WHOLE, **OF_MARGINS, Stretches.id: Stretches(WHOLE)}

__all__ = ["RULES"]
