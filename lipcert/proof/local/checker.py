"""The checker of certificates of samples; it denies by default, as `proof.checker` does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from lipcert.network.enclosure import Float
from lipcert.network.graph import Network
from lipcert.proof.checker import Verdict, other_model, unproved
from lipcert.proof.claims import NORMS, Level, Norm
from lipcert.proof.engines import Engine
from lipcert.proof.environment import require_ieee
from lipcert.proof.local.certificate import BallClaim, LocalCertificate, Samples
from lipcert.proof.local.evaluator import Evaluator
from lipcert.proof.local.proposal import Ints, Proposal
from lipcert.proof.local.region import Region
from lipcert.proof.local.witness import from_arrays
from lipcert.proof.reasons import Reason
from lipcert.proof.refusal import Refused

AT_ONCE = 16  # samples


@dataclass(frozen=True)
class LocalRule:
    """What derives margins of samples.

    Attributes:
        norms: of the balls that it serves.
        derive: margins (B, classes) of some samples from a proposal, see `Evaluator`.
    """

    norms: frozenset[Norm]
    derive: Callable[[Evaluator, Region, Ints, Proposal], Float]


LOCAL_RULES: Mapping[str, LocalRule] = MappingProxyType(
    {
        "local-intervals/v1": LocalRule(frozenset(NORMS), Evaluator.intervals),
        "local-zonotope/v1": LocalRule(frozenset(NORMS), Evaluator.zonotope),
        "local-lines/v1": LocalRule(frozenset(NORMS), Evaluator.crown),
        "local-multipliers/v1": LocalRule(frozenset({"l2"}), Evaluator.anchored),
        "local-norms/v1": LocalRule(frozenset({"l2"}), Evaluator.pruned),
        "local-gradients/v1": LocalRule(frozenset(NORMS), Evaluator.jacobian),
        "local-parts/v1": LocalRule(frozenset(NORMS), Evaluator.parts),
    }
)


def check_local(
    certificate: LocalCertificate, network: Network, samples: Samples | None = None, engine: Engine = "float64"
) -> Verdict:
    """Check a certificate of samples against a network as read from its file.

    Args:
        certificate: as loaded.
        network: as read, before any rewriting.
        samples: those that it is to be about; None for those that are stored with it.
        engine: the arithmetic; only ``float64`` has these rules.

    Level of a valid claim: verified. Never raises for a certificate that is merely wrong.
    """
    other = other_model(certificate.graph_digest, certificate.weights_digest, network)
    if other is not None:
        return other
    given = certificate.samples if samples is None else samples
    if given is None:
        return unproved(Reason.OTHER_DATA, "it holds no samples, and none were given")
    if given.digest != certificate.claim.data_digest:
        return unproved(Reason.OTHER_DATA, "data digest differs")
    rule = LOCAL_RULES.get(certificate.rule)
    if rule is None:
        return unproved(Reason.UNKNOWN_RULE, certificate.rule[:80])
    if engine != "float64":
        return unproved(Reason.NOT_IN_ENGINE, certificate.rule)
    if certificate.claim.norm not in rule.norms:
        return unproved(Reason.WRONG_NORM, f"{certificate.rule}, {certificate.claim.norm}")
    return _derived(certificate, network, given, rule)


def _derived(certificate: LocalCertificate, network: Network, samples: Samples, rule: LocalRule) -> Verdict:
    try:
        require_ieee()
    except Refused as refusal:
        return unproved(Reason.ARITHMETIC, str(refusal))
    classes, shape = network.nodes[-1].size, network.input_shape
    if samples.inputs.shape[1:] != shape or not ((samples.labels >= 0) & (samples.labels < classes)).all():
        return unproved(Reason.OTHER_DATA, f"the network takes {shape} and has {classes} classes")
    if classes < 2:
        return unproved(Reason.NO_SUBJECT, "the network has a single output")
    try:
        evaluator = Evaluator(network)
        proposal = from_arrays(certificate.witness, evaluator.steps.network, len(samples.labels))
        margins = derived_margins(evaluator, certificate.claim, samples, certificate.rule, proposal)
    except Refused as refusal:
        return unproved(Reason.REFUSED, str(refusal))
    open_ = np.flatnonzero(~(margins.min(axis=1) > 0))
    if len(open_):
        return unproved(Reason.NOT_ROBUST, f"{len(open_)} of {len(margins)} are not proved, the first is {open_[0]}")
    return Verdict(True, Level.VERIFIED, Reason.PROVED)


def derived_margins(evaluator: Evaluator, claim: BallClaim, samples: Samples, rule: str, proposal: Proposal) -> Float:
    """Return lower bounds of the margins (N, classes) of samples on the balls of a claim, some samples at a time.

    Raises:
        Refused: see `Evaluator`.
    """
    found = []
    for start in range(0, len(samples.labels), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        region = Region.around(samples.inputs[part], claim.eps, claim.norm, claim.box)
        found.append(LOCAL_RULES[rule].derive(evaluator, region, samples.labels[part], proposal.take(part)))
    return np.concatenate(found)
