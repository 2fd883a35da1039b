"""The rules: each derives one kind of bound from a network and a witness, every rounding error counted.

A rule never believes its witness: whatever numbers it holds, the result is a true upper bound or a refusal.
Their ids carry a version; a rule whose meaning changes gets a new id.
"""

from __future__ import annotations

from collections.abc import Mapping

from lipcert.proof.rules.absolute import Absolute
from lipcert.proof.rules.base import Derivation, Rule, Step
from lipcert.proof.rules.multipliers import Multipliers
from lipcert.proof.rules.product import Product

RULES: Mapping[str, Rule] = {rule.id: rule for rule in (Product(), Absolute(), Multipliers())}

__all__ = ["RULES", "Derivation", "Rule", "Step"]
