"""The rules: each derives one kind of bound from a network and a witness, every rounding error counted.

A rule never believes its witness: whatever numbers it holds, the result is a true upper bound or a refusal.
Their ids carry a version; a rule whose meaning changes gets a new id.
"""

from __future__ import annotations

from collections.abc import Mapping

from lipcert.proof.rules.absolute import Absolute
from lipcert.proof.rules.absolute_margins import AbsoluteMargins
from lipcert.proof.rules.base import Derivation, Rule, Step
from lipcert.proof.rules.directions import Directions
from lipcert.proof.rules.lip_lt import LoopTransformation
from lipcert.proof.rules.multipliers import Multipliers
from lipcert.proof.rules.product import Product
from lipcert.proof.rules.shift_invariant import ShiftInvariant
from lipcert.proof.rules.stretches import Stretches

WHOLE: Mapping[str, Rule] = {
    rule.id: rule for rule in (Product(), Absolute(), Multipliers(), LoopTransformation(), ShiftInvariant())
}
"""The rules that look at a network as a whole; each may also bound a stretch."""

OF_MARGINS: Mapping[str, Rule] = {rule.id: rule for rule in (Directions(), AbsoluteMargins(Absolute()))}
"""The rules that also give bounds of all margins."""

RULES: Mapping[str, Rule] = {**WHOLE, **OF_MARGINS, Stretches.id: Stretches(WHOLE)}

__all__ = ["RULES", "Derivation", "Rule", "Step"]
