"""Verified operator norms: `operator_norm` is the door, `plan` the table of techniques."""

from lipcert.proof.norms.operator import operator_norm
from lipcert.proof.norms.plan import Plan, plan_for
from lipcert.proof.norms.scaling import Scaled, scaled

__all__ = ["Plan", "Scaled", "operator_norm", "plan_for", "scaled"]
