"""What global certification rests on: one Lipschitz bound, the network to execute, and what margins can do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lipcert.bounds import engine
from lipcert.bounds.documents import bound_result, contributions, model_info
from lipcert.errors import CertificateError, InconclusiveError, UsageError
from lipcert.network.graph import Network
from lipcert.network.normal import normal_form, split_head, strip_softmax
from lipcert.proof.certificate import Certificate
from lipcert.proof.checker import check
from lipcert.proof.claims import Level, Quantity
from lipcert.proof.refusal import Refused
from lipcert.proof.rules import Step
from lipcert.proof.subject import subject
from lipcert.results import BoundResult
from lipcert.robustness.forward import ForwardPass, honest_precisions, l2_steps
from lipcert.robustness.head import Head
from lipcert.robustness.margins import Margins, l2_dilation, margin_slopes
from lipcert.robustness.rounding_model import FLOAT32, FLOAT64, Precision, dot_length
from lipcert.robustness.settings import Settings

CERTIFICATE = "bound.lipcert"  # in the folder of a run
SMALL_WORK = 2.0**26  # multiplications (hundredths of a second) up to which everything is done in float64 at once


@dataclass(frozen=True)
class Basis:
    """Everything that the global stage needs.

    Attributes:
        executed: the network to run.
        head: the linear layer behind it, or the identity.
        steps: the network's verified l2 factors, node by node.
        margins: slopes and error spread of all margins.
        deployed: precision of the deployed pass, for ``verified-exec``; else None.
        subject: what the bound speaks of, in normal form.
        bound: the bound as a document.
        level: of a certified sample.
        notes: for the report.
    """

    executed: Network
    head: Head
    steps: Sequence[Step]
    margins: Margins
    deployed: Precision | None
    subject: Network
    bound: BoundResult
    level: Level
    notes: tuple[str, ...]

    def passes(self, samples: int) -> list[ForwardPass]:
        """Return the forward passes to try in turn: float32 first where float64 for all would take long."""
        work = samples * sum(node.size * dot_length(node.op) for _, node in self.executed.affine_nodes())
        precisions = honest_precisions()
        if work <= SMALL_WORK:
            precisions = (FLOAT64,)
        return [ForwardPass(self.executed, self.steps, p, self.deployed, self.head) for p in precisions]

    def with_lower(self, lower: float) -> Basis:
        """Return the basis with a lower bound of the same constant beside its bound."""
        bound = self.bound.bound
        ratio = bound / lower if bound is not None and lower > 0 else None
        return replace(self, bound=self.bound.model_copy(update={"lower_bound": lower, "ratio": ratio}))


@dataclass(frozen=True)
class _Found:
    """A bound: its value and document, the normal form it speaks of with known l2 steps, and the head behind it."""

    value: float
    document: BoundResult
    subject: Network
    steps: Sequence[Step]
    head: Head


def make_basis(network: Network, settings: Settings) -> Basis:
    """Bound the network and prepare what certification needs.

    Args:
        network: as read.
        settings: of the run.

    Raises:
        UsageError: the bound method or the certificate does not serve the network and norm.
        CertificateError: the certificate is invalid.
        InconclusiveError: no bound could be derived, or ``verified-exec`` is out of reach.
    """
    found = _by_method(network, settings) if settings.certificate is None else _by_certificate(network, settings)
    level, deployed = Level.parse(settings.level), None
    executed, shown = found.subject, found.head
    if level is Level.VERIFIED_EXEC:
        deployed = _deployed_precision(network)
        executed, shown = network, Head.identity(found.head.classes)
    try:
        steps = l2_steps(executed, found.subject, found.steps)
    except Refused as refusal:
        raise InconclusiveError(f"the forward passes cannot be bounded: {refusal}") from None
    margins = Margins(
        slopes=margin_slopes(found.value, found.head.differences(settings.norm)),
        spread=shown.differences("l2"),
        dilation=l2_dilation(math.prod(network.input_shape), settings.norm),
    )
    notes, document = _notes(network, found, level), found.document
    if not document.contributions and settings.norm == "l2":  # say at least what the layers' product would be
        document = document.model_copy(update={"contributions": contributions(executed, steps)})
    return Basis(executed, shown, steps, margins, deployed, found.subject, document, level, notes)


def output_bound(network: Network, settings: Settings) -> float:
    """Return the bound of the whole network's output, which a requirement may speak of."""
    return engine.bound(network, settings.bound_method, settings.norm, time_limit=settings.time_limit).value


def _by_method(network: Network, settings: Settings) -> _Found:
    bare = strip_softmax(network)
    parts = split_head(normal_form(bare))
    quantity: Quantity = "output" if parts is None else settings.quantity
    spoken = network if quantity == "features" else bare  # features leave a last softmax out by themselves
    bound = engine.bound(
        spoken, settings.bound_method, settings.norm, quantity=quantity, time_limit=settings.time_limit
    )
    head = _head(bound.subject, quantity, network)
    steps = bound.steps if bound.method == "product" and bound.norm == "l2" else ()
    saved = _save(bound.certificate, settings) if spoken is network else None
    return _Found(bound.value, bound_result(network, bound, saved), bound.subject, steps, head)


def _save(certificate: Certificate, settings: Settings) -> str | None:
    """Write the certificate of the run's bound beside its records, and return its path."""
    if settings.folder is None:
        return None
    path = Path(settings.folder) / CERTIFICATE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder '{path.parent}': {error.strerror}") from None
    certificate.save(path)
    return str(path)


def _by_certificate(network: Network, settings: Settings) -> _Found:
    assert settings.certificate is not None
    certificate = Certificate.load(settings.certificate)
    claim = certificate.claim
    if claim.norm != settings.norm:
        raise UsageError(f"the certificate is about {claim.norm}, the run about {settings.norm}")
    verdict = check(certificate, network)
    if not verdict.valid:
        raise CertificateError(f"the certificate '{settings.certificate}' does not hold: {verdict.text}")
    document = BoundResult(
        model=model_info(network),
        norm=claim.norm,
        method=certificate.rule,
        bound=claim.bound,
        bound_hex=claim.bound.hex(),
        level="verified",
        lower_bound=None,
        ratio=None,
        quantity=claim.quantity,
        seconds=0.0,
        certificate=str(settings.certificate),
        solver=None,
    )
    spoken = subject(network, claim.quantity)
    return _Found(claim.bound, document, spoken, (), _head(spoken, claim.quantity, network))


def _head(spoken: Network, quantity: Quantity, network: Network) -> Head:
    """Return what leads from the subject's outputs to the logits."""
    parts = split_head(normal_form(strip_softmax(network))) if quantity == "features" else None
    return Head.identity(spoken.nodes[-1].size) if parts is None else Head.of(parts[1])


def _deployed_precision(network: Network) -> Precision:
    """Return the arithmetic of the deployed pass, where its error can be bounded."""
    if not network.is_exact:
        raise InconclusiveError(
            "level verified-exec is out of reach: the model computes some of its weights (a quotient, a folded "
            "normalisation), and how the deployed pass rounds them is not known; use --level verified"
        )
    if strip_softmax(network) is not network:
        raise InconclusiveError(
            "level verified-exec is out of reach: a rounded softmax may tie where its inputs do not; export the "
            "model without its last softmax, or use --level verified"
        )
    known = {precision.name: precision for precision in (FLOAT32, FLOAT64)}
    if network.dtype not in known:
        raise InconclusiveError(
            f"level verified-exec is out of reach: the model computes in {network.dtype}, and rounding is modelled for "
            "float32 and float64 only; use --level verified"
        )
    return known[network.dtype]


def _notes(network: Network, found: _Found, level: Level) -> tuple[str, ...]:
    notes = []
    if found.head.weight is None:
        notes.append("one bound serves all pairs of classes, the last layer included")
    else:
        notes.append("the bound is that of the features before the last linear layer; every rival has its own factor")
    if strip_softmax(network) is not network:
        notes.append("the last softmax is set aside for the verdicts: it keeps the order of the classes, ties included")
    if level is Level.VERIFIED_EXEC:
        notes.append(
            f"the deployed pass is {network.dtype}, operator by operator as read: dot products in any order, with or "
            "without fused multiply-add, elementary functions to within 64 units of roundoff"
        )
    return tuple(notes)
