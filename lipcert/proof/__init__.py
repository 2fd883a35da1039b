"""Claims, certificates, rules and the checker: everything that has to be trusted, and nothing else."""

from lipcert.proof.certificate import Certificate
from lipcert.proof.checker import Verdict, check
from lipcert.proof.claims import Claim, Level, Norm, Quantity
from lipcert.proof.reasons import Malformed, Reason
from lipcert.proof.refusal import Refused

__all__ = ["Certificate", "Claim", "Level", "Malformed", "Norm", "Quantity", "Reason", "Refused", "Verdict", "check"]
