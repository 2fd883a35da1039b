"""What global certification rests on: one Lipschitz bound, the network to execute, and what margins can do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lipcert.bounds import engine
from lipcert.bounds.documents import contributions
from lipcert.errors import InconclusiveError
from lipcert.network.enclosure import Float
from lipcert.network.graph import Network
from lipcert.network.linear import row_terms
from lipcert.network.normal import strip_softmax
from lipcert.proof.claims import Level, Norm
from lipcert.proof.refusal import Refused
from lipcert.proof.rules import Step
from lipcert.proof.subject import subject
from lipcert.results import BoundResult
from lipcert.robustness.found import Found, find_bounds
from lipcert.robustness.margins import Margins, l2_dilation, margin_slopes
from lipcert.robustness.passes.execution import Execution
from lipcert.robustness.passes.forward import ForwardPass, honest_precisions, l2_steps
from lipcert.robustness.passes.head import Head
from lipcert.robustness.passes.precision import FLOAT32, FLOAT64, PRECISIONS, Precision
from lipcert.robustness.settings import Settings

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
        pairs: the bounds of all differences of two logits as a document, where they are used.
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
    pairs: BoundResult | None
    level: Level
    notes: tuple[str, ...]

    def passes(self, samples: int) -> list[ForwardPass]:
        """Return the forward passes to try in turn: float32 first where float64 for all would take long."""
        work = samples * sum(node.size * row_terms(node.op) for _, node in self.executed.affine_nodes())
        precisions = honest_precisions()
        if work <= SMALL_WORK:
            precisions = (FLOAT64,)
        return [ForwardPass(self.executed, self.steps, p, self.deployed, self.head) for p in precisions]

    @property
    def execution(self) -> Execution | None:
        """The deployed pass around samples, at level ``verified-exec``; else None."""
        if self.deployed is None:
            return None
        run = ForwardPass(self.executed, self.steps, FLOAT64, self.deployed, self.head)
        return Execution(run, self.margins.dilation)

    def with_lower(self, lower: float) -> Basis:
        """Return the basis with a lower bound of the same constant beside its bound."""
        bound = self.bound.bound
        ratio = bound / lower if bound is not None and lower > 0 else None
        return replace(self, bound=self.bound.model_copy(update={"lower_bound": lower, "ratio": ratio}))


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
    found = find_bounds(network, settings)
    level, deployed = max(Level.parse(settings.level), Level.VERIFIED), None
    executed, shown = found.subject, found.head
    if level is Level.VERIFIED_EXEC:
        deployed = _deployed_precision(network, settings.arithmetic)
        executed, shown = network, Head.identity(found.head.classes)
    try:
        steps = l2_steps(executed, found.subject, found.steps)
    except Refused as refusal:
        raise InconclusiveError(f"the forward passes cannot be bounded: {refusal}") from None
    margins = Margins(
        slopes=_slopes(found, settings.norm),
        spread=shown.differences("l2"),
        dilation=l2_dilation(math.prod(network.input_shape), settings.norm),
        rank=settings.top_k,
    )
    notes, document = _notes(network, found, deployed), found.document
    if not document.contributions and settings.norm == "l2":  # say at least what the layers' product would be
        document = document.model_copy(update={"contributions": contributions(executed, steps)})
    pairs = None if found.pairs is None else found.pairs[1]
    spoken = subject(network, found.claim.widest) if found.claim.quantity == "margins" else found.subject
    return Basis(executed, shown, steps, margins, deployed, spoken, document, pairs, level, notes)


def _slopes(found: Found, norm: Norm) -> Float:
    """Return the least bound known of every margin."""
    slopes = margin_slopes(found.claim.bound, found.head.differences(norm))
    return slopes if found.pairs is None else np.minimum(slopes, np.array(found.pairs[0].table))


def output_bound(network: Network, settings: Settings) -> float:
    """Return the bound of the whole network's output, which a requirement may speak of."""
    return engine.bound(network, settings.bound_method, settings.norm, time_limit=settings.bound_seconds).value


def _deployed_precision(network: Network, arithmetic: str | None) -> Precision:
    """Return the arithmetic of the deployed pass, the model's own where none is named."""
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
    if arithmetic is not None:
        return PRECISIONS[arithmetic]
    if network.dtype not in (FLOAT32.name, FLOAT64.name):
        raise InconclusiveError(
            f"level verified-exec is out of reach: the model computes in {network.dtype}, how it adds is not known; "
            f"name an arithmetic whose model fits the deployed pass (--arithmetic {', '.join(PRECISIONS)}), or use "
            "--level verified"
        )
    return PRECISIONS[network.dtype]


def _notes(network: Network, found: Found, deployed: Precision | None) -> tuple[str, ...]:
    notes = []
    if found.pairs is not None:
        notes.append("every pair of classes has a bound of its own, from one inequality for all output directions")
    elif found.head.weight is None:
        notes.append("one bound serves all pairs of classes, the last layer included")
    if found.head.weight is not None:
        notes.append("the bound is that of the features before the last linear layer; every rival has its own factor")
    notes += found.notes
    if strip_softmax(network) is not network:
        notes.append("the last softmax is set aside for the verdicts: it keeps the order of the classes, ties included")
    if deployed is not None:
        notes.append(
            f"the deployed pass is {deployed.words}, operator by operator as read: dot products in any order, with or "
            "without fused multiply-add, elementary functions to within 64 units of roundoff; no overflow"
        )
    return tuple(notes)
