"""Certificates of samples from a local method: what it proposes, and what `proof.local` derives from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from lipcert.bounds.local.method import LocalMethod
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.view import View
from lipcert.errors import UsageError
from lipcert.network.graph import Network
from lipcert.proof.claims import Norm
from lipcert.proof.local import (
    NOTHING,
    BallClaim,
    Evaluator,
    LocalCertificate,
    Mask,
    Proposal,
    Samples,
    derived_margins,
    witness_of,
)


@dataclass(frozen=True)
class Proved:
    """What was proved of samples.

    Attributes:
        rows: (N,) which keep their class on the whole ball.
        certificate: of these, in order; None where there are none. Level: verified.
    """

    rows: Mask
    certificate: LocalCertificate | None


class SampleCertifier:
    """Proves samples of one network by any local method, and keeps what all of them need.

    Args of the constructor:
        network: as read. device: where methods propose.

    Raises:
        UnsupportedError: the network has an operator that cannot be executed.
        Refused: the network has no verified local bounds.
    """

    def __init__(self, network: Network, device: str | torch.device = "cpu") -> None:
        self._network, self._view, self._evaluator = network, View(network, device), Evaluator(network)

    def prove(
        self,
        method: LocalMethod,
        samples: Samples,
        eps: float,
        norm: Norm = "l2",
        box: tuple[float, float] | None = None,
    ) -> Proved:
        """Return which samples a method proves at level verified, and their certificate.

        The samples are handled at once: give large networks a few at a time.

        Args:
            method: its bounds can be derived again (`LocalMethod.derived`).
            samples: N.
            eps, norm, box: of the balls, as in `Ball.around`.

        Raises:
            UsageError: the method has no verified form or does not serve the network, or the region is wrong.
            Refused: nothing can be proved in this process.
        """
        view, evaluator = self._view, self._evaluator
        obstacle = "its bounds have no verified form" if method.rule is None else method.refuses(view, norm)
        if obstacle is not None or method.rule is None:
            raise UsageError(f"the method '{method.name}' cannot certify samples: {obstacle}")
        labels = torch.from_numpy(samples.labels).to(view.device)
        ball = Ball.around(view.place(samples.inputs), eps, norm, box)
        bounds = method.bound(view, ball, labels)
        rows = (bounds.margins.amin(dim=1) > 0).cpu().numpy()  # others are not worth a proposal
        if not rows.any():
            return Proved(rows, None)
        hopeful = _taken(samples, rows)
        claim = BallClaim(norm, eps, box, hopeful.digest)
        chosen, found = NOTHING, _positive(evaluator, claim, hopeful, method.rule, NOTHING)
        kept = torch.from_numpy(np.flatnonzero(rows)).to(view.device)
        proposal = NOTHING if found.all() else bounds.proposal(kept)
        if proposal is not NOTHING:
            again = _positive(evaluator, claim, hopeful, method.rule, proposal)
            if again.sum() > found.sum():
                chosen, found = proposal, again
        rows[rows] = found
        if not rows.any():
            return Proved(rows, None)
        proved = _taken(samples, rows)
        claim = BallClaim(norm, eps, box, proved.digest)
        witness = witness_of(chosen.take(found))
        return Proved(rows, LocalCertificate.of(self._network, claim, method.rule, witness, proved))


def certify_samples(
    network: Network,
    method: LocalMethod,
    samples: Samples,
    eps: float,
    norm: Norm = "l2",
    box: tuple[float, float] | None = None,
) -> Proved:
    """Return which samples a method proves at level verified, and their certificate; see `SampleCertifier`."""
    return SampleCertifier(network).prove(method, samples, eps, norm, box)


def _taken(samples: Samples, rows: Mask) -> Samples:
    return Samples(samples.inputs[rows], samples.labels[rows])


def _positive(evaluator: Evaluator, claim: BallClaim, samples: Samples, rule: str, proposal: Proposal) -> Mask:
    margins = derived_margins(evaluator, claim, samples, rule, proposal)
    return np.asarray(margins.min(axis=1) > 0)
