"""The checker: does this certificate prove its claim about this network?

It denies by default, reads nothing from the certificate but claim, rule id, digests and witness, and rebuilds the
statement from the network itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from lipcert.network.graph import Network
from lipcert.proof.certificate import Certificate
from lipcert.proof.claims import Level
from lipcert.proof.engines import Engine, rules_of
from lipcert.proof.environment import require_ieee
from lipcert.proof.reasons import Reason
from lipcert.proof.refusal import Refused, TooLarge
from lipcert.proof.rules import RULES, Rule
from lipcert.proof.subject import subject


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
        return f"{self.reason.text} ({self.detail})" if self.detail else self.reason.text


def check(certificate: Certificate, network: Network, engine: Engine = "float64") -> Verdict:
    """Check a certificate against a network as read from its file.

    Args:
        certificate: as loaded.
        network: as read, before any rewriting.
        engine: the arithmetic, see `proof.engines`.

    Level of a valid claim: verified. Never raises for a certificate that is merely wrong.

    Raises:
        UsageError: there is no such engine, or it is not installed.
    """
    rules = rules_of(engine)
    other = other_model(certificate.graph_digest, certificate.weights_digest, network)
    if other is not None:
        return other
    if certificate.rule not in rules:
        reason = Reason.NOT_IN_ENGINE if certificate.rule in RULES else Reason.UNKNOWN_RULE
        return unproved(reason, certificate.rule[:80])
    return _derived(certificate, network, rules[certificate.rule])


def other_model(graph_digest: str, weights_digest: str, network: Network) -> Verdict | None:
    """Return the verdict where digests of a certificate are not those of a network, None where they are."""
    if graph_digest != network.graph_digest:
        return unproved(Reason.OTHER_STRUCTURE, "graph digest differs")
    if weights_digest != network.weights_digest:
        return unproved(Reason.OTHER_WEIGHTS, "weights digest differs")
    return None


def unproved(reason: Reason, detail: str) -> Verdict:
    """Return the verdict on a claim that is not proved."""
    return Verdict(False, None, reason, detail)


def _derived(certificate: Certificate, network: Network, rule: Rule) -> Verdict:
    claim = certificate.claim
    if claim.norm not in rule.norms:
        return unproved(Reason.WRONG_NORM, f"{rule.id}, {claim.norm}")
    try:
        require_ieee()
    except Refused as refusal:
        return unproved(Reason.ARITHMETIC, str(refusal))
    try:
        function = subject(network, claim.quantity)
    except Refused as refusal:
        return unproved(Reason.NO_SUBJECT, str(refusal))
    try:
        derivation = rule.derive(function, claim.norm, certificate.witness)
    except TooLarge as refusal:
        return unproved(Reason.TOO_LARGE, str(refusal))
    except Refused as refusal:
        return unproved(Reason.REFUSED, str(refusal))
    derived = derivation.bound
    if claim.table is not None:
        if derivation.margins is None:
            return unproved(Reason.REFUSED, f"{rule.id} gives no bounds of margins")
        derived = float(derivation.margins.max())
    excess = claim.exceeded_by(derived, derivation.margins)
    if excess is not None:
        return Verdict(False, None, Reason.TOO_LOW, excess, derived)
    return Verdict(True, Level.VERIFIED, Reason.PROVED, derived=derived)
