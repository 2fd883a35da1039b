"""What certification starts from: bounds found by a method, or those of a certificate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lipcert.bounds import engine
from lipcert.bounds.documents import bound_result, model_info
from lipcert.bounds.engine import Bound
from lipcert.bounds.margins import SERVED
from lipcert.errors import CertificateError, InconclusiveError, UsageError
from lipcert.network.graph import Network
from lipcert.network.normal import normal_form, split_head, strip_softmax
from lipcert.proof.certificate import Certificate
from lipcert.proof.checker import check
from lipcert.proof.claims import Claim, Quantity, classes_of
from lipcert.proof.rules import Step
from lipcert.proof.subject import subject
from lipcert.results import BoundResult
from lipcert.robustness.passes.head import Head
from lipcert.robustness.settings import Settings

CERTIFICATE, MARGINS = "bound.lipcert", "margins.lipcert"  # in the folder of a run


@dataclass(frozen=True)
class Found:
    """A bound: its claim and document, the normal form before the head with known l2 steps, and the head.

    `pairs` are bounds of all margins, claim and document.
    """

    claim: Claim
    document: BoundResult
    subject: Network
    steps: Sequence[Step]
    head: Head
    pairs: tuple[Claim, BoundResult] | None = None
    notes: tuple[str, ...] = ()


def find_bounds(network: Network, settings: Settings) -> Found:
    """Bound the network as the settings say, or take the bound of their certificate.

    Raises:
        UsageError: the bound method or the certificate does not serve the network and norm.
        CertificateError: the certificate is invalid.
        InconclusiveError: no bound could be derived.
    """
    return _by_method(network, settings) if settings.certificate is None else _by_certificate(network, settings)


def _by_method(network: Network, settings: Settings) -> Found:
    bare = strip_softmax(network)
    parts = split_head(normal_form(bare))
    quantity: Quantity = "output" if parts is None or settings.quantity == "output" else "features"
    spoken = network if quantity == "features" else bare  # features leave a last softmax out by themselves
    bound = engine.bound(
        spoken, settings.bound_method, settings.norm, quantity=quantity, time_limit=settings.bound_seconds
    )
    head = _head(bound.subject, quantity, network)
    steps = bound.steps if bound.method == "product" and bound.norm == "l2" else ()
    saved = _save(bound.certificate, settings, CERTIFICATE) if spoken is network else None
    found = Found(bound.certificate.claim, bound_result(network, bound, saved), bound.subject, steps, head)
    return _with_pairs(network, settings, found, bound)


def _with_pairs(network: Network, settings: Settings, found: Found, bound: Bound) -> Found:
    """Add bounds of all margins where what the method proposed leads to them, and time is left for them."""
    if settings.quantity != "margins" or bound.certificate.rule not in SERVED:
        return found
    limit = settings.bound_seconds
    if limit is not None:
        limit = 2.0 * limit - bound.seconds  # half of the time is for the bound itself, which may have taken more
        if limit < bound.seconds:  # the same again is the least that they take
            return replace(found, notes=(_no_time(settings.time_limit, bound.seconds),))
    try:
        pairs = engine.bound(network, bound.method, settings.norm, quantity="margins", time_limit=limit)
    except (InconclusiveError, UsageError) as error:
        return replace(found, notes=(f"no bounds of single margins: {error}",))
    saved = _save(pairs.certificate, settings, MARGINS)
    document = bound_result(network, pairs, saved)
    return replace(found, pairs=(pairs.certificate.claim, document), notes=pairs.notes)


def _no_time(limit: float | None, seconds: float) -> str:
    return (
        f"no bounds of single margins: the one bound took {seconds:.1f} s of the time limit of {limit:g} s, they would "
        "take as long at least"
    )


def _save(certificate: Certificate, settings: Settings, name: str) -> str | None:
    """Write a certificate of the run beside its records, and return its path."""
    if settings.folder is None:
        return None
    path = Path(settings.folder) / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder '{path.parent}': {error.strerror}") from None
    certificate.save(path)
    return str(path)


def _by_certificate(network: Network, settings: Settings) -> Found:
    assert settings.certificate is not None
    certificate = Certificate.load(settings.certificate)
    claim = certificate.claim
    if claim.norm != settings.norm:
        raise UsageError(f"the certificate is about {claim.norm}, the run about {settings.norm}")
    if classes_of(claim.quantity):
        raise UsageError(f"the certificate is about '{claim.quantity}' alone: certification needs all classes")
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
        margins=claim.table,
        seconds=0.0,
        certificate=str(settings.certificate),
        solver=None,
    )
    spoken = subject(network, claim.quantity)
    pairs = None if claim.table is None else (claim, document)
    return Found(claim, document, spoken, (), _head(spoken, claim.quantity, network), pairs)


def _head(spoken: Network, quantity: Quantity, network: Network) -> Head:
    """Return what leads from the subject's outputs to the logits."""
    parts = split_head(normal_form(strip_softmax(network))) if quantity == "features" else None
    return Head.identity(spoken.nodes[-1].size) if parts is None else Head.of(parts[1])
