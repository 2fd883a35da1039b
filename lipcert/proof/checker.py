"""The checker: does this certificate prove its claim about this network?

It denies by default, reads nothing from the certificate but claim, rule id, digests and witness, and rebuilds the
statement from the network itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lipcert.network.graph import Network
from lipcert.proof.certificate import Certificate
from lipcert.proof.claims import Level
from lipcert.proof.environment import require_ieee
from lipcert.proof.refusal import Refused
from lipcert.proof.rules import RULES
from lipcert.proof.subject import subject


class Reason(StrEnum):
    """Why a verdict is what it is; the texts say cause and remedy."""

    PROVED = "the claim is proved for this model"
    OTHER_STRUCTURE = "the certificate belongs to a model of another structure: certify this model anew"
    OTHER_WEIGHTS = "the certificate belongs to other weights: the model changed since; certify it anew"
    UNKNOWN_RULE = "this version of lipcert does not know the certificate's rule: update lipcert"
    REFUSED = "the witness does not prove a bound for this model"
    TOO_LOW = "the witness proves a larger bound than the certificate claims"


@dataclass(frozen=True)
class Verdict:
    """Outcome of a check.

    Attributes:
        valid: whether the claim is proved.
        level: verified where valid, else None.
        reason: the reason; `detail` adds the particulars in one line.
        derived: the bound that the rule derived, where it did.
    """

    valid: bool
    level: Level | None
    reason: Reason
    detail: str = ""
    derived: float | None = None

    @property
    def text(self) -> str:
        """The reason with its particulars, one line."""
        return f"{self.reason.value} ({self.detail})" if self.detail else self.reason.value


def check(certificate: Certificate, network: Network) -> Verdict:
    """Check a certificate against a network as read from its file.

    Level of a valid claim: verified. Never raises for a certificate that is merely wrong.
    """
    if certificate.graph_digest != network.graph_digest:
        return _no(Reason.OTHER_STRUCTURE, "graph digest differs")
    if certificate.weights_digest != network.weights_digest:
        return _no(Reason.OTHER_WEIGHTS, "weights digest differs")
    rule = RULES.get(certificate.rule)
    if rule is None:
        return _no(Reason.UNKNOWN_RULE, certificate.rule[:80])
    claim = certificate.claim
    try:
        require_ieee()
        derived = rule.derive(subject(network, claim.quantity), claim.norm, certificate.witness).bound
    except Refused as refusal:
        return _no(Reason.REFUSED, str(refusal))
    if not derived <= claim.bound:
        return Verdict(False, None, Reason.TOO_LOW, f"proved {derived!r}, claimed {claim.bound!r}", derived)
    return Verdict(True, Level.VERIFIED, Reason.PROVED, derived=derived)


def _no(reason: Reason, detail: str) -> Verdict:
    return Verdict(False, None, reason, detail)
