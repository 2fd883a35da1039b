"""The stage of a local method: samples whose margins stay positive on the whole ball.

Methods propose, usually in float32. Where the run asks for level verified and the method can (`LocalMethod.derived`),
what it proves is derived again with every rounding error counted, and only that counts.

A proof below the level of the run does not count: the sample stays unknown at that eps, with the level of the proof
beside it in the records, and the report says how many such samples there are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from lipcert.bounds.local.method import LocalMethod
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.registry import find_local
from lipcert.bounds.local.view import View
from lipcert.bounds.torch_precision import full_precision
from lipcert.errors import InconclusiveError, UsageError
from lipcert.network.graph import Network
from lipcert.proof.claims import Level
from lipcert.proof.local import NOTHING, Evaluator, Proposal, Region
from lipcert.proof.refusal import Refused
from lipcert.robustness.settings import Settings
from lipcert.robustness.stages import Images, Stage
from lipcert.robustness.verdicts import Ints, Status, Verdicts

BATCH_NUMBERS = 2**19  # numbers in the largest layer of a batch
LARGEST_BATCH = 200
DERIVED_AT_ONCE = 16  # samples

Mask = npt.NDArray[np.bool_]


def local_stages(network: Network, settings: Settings, device: str) -> list[Stage]:
    """Return the stages of the local methods that a run asks for, in order.

    Raises:
        UsageError: a method does not serve the norm or the network, or not at the level of the run.
        UnsupportedError: the network has an operator that cannot be executed.
    """
    methods = [find_local(name) for name in settings.local_methods]
    if not methods:
        return []
    view = View(network, device)
    for method in methods:
        obstacle = method.refuses(view, settings.norm)
        if obstacle is not None:
            raise UsageError(f"the method '{method.name}' cannot be used here: {obstacle}")
    verified = settings.level == Level.VERIFIED.label and any(method.derived for method in methods)
    evaluator = _evaluator(network, methods) if verified else None
    return [LocalStage(view, method, settings, evaluator if method.derived else None) for method in methods]


def _evaluator(network: Network, methods: Sequence[LocalMethod]) -> Evaluator:
    try:
        return Evaluator(network)
    except Refused as refusal:
        names = ", ".join(f"'{method.name}'" for method in methods if method.derived)
        raise UsageError(
            f"the method {names} cannot be used at level {Level.VERIFIED.label} here: {refusal}; "
            f"--level {Level.NUMERICAL.label} counts bounds whose rounding is not counted"
        ) from None


class LocalStage(Stage):
    """Certifies samples one ball at a time, smallest eps first; what fails at one eps is not tried at larger ones.

    Args of the constructor:
        view: the network.
        method: bounds the margins.
        settings: of the run: radii, norm and level.
        evaluator: derives what the method proves, at level verified; None where that is not asked for.
    """

    def __init__(self, view: View, method: LocalMethod, settings: Settings, evaluator: Evaluator | None = None) -> None:
        self.name = method.name
        self._evaluator = evaluator
        self._view, self._method = view, method
        self._eps, self._norm, self._required = settings.eps, settings.norm, Level.parse(settings.level)
        self._batch = max(1, min(LARGEST_BATCH, BATCH_NUMBERS // max(node.size for node in view.nodes)))
        self._uncounted = np.zeros(len(self._eps), dtype=np.int64)

    def remarks(self) -> tuple[str, ...]:
        """Say how many samples are proved at a level that does not count."""
        if not self._uncounted.any():
            return ()
        counts = ", ".join(f"{n} at {eps:g}" for n, eps in zip(self._uncounted, self._eps, strict=True))
        label = self._method.level.label
        return (
            f"'{self.name}' proves further samples at level {label} only ({counts}): they count as unknown; "
            f"--level {label} counts them",
        )

    def decide(self, images: Images, verdicts: Verdicts, own: int) -> None:
        """Mark the samples whose margins are proved positive."""
        failed = np.zeros(len(verdicts), dtype=np.bool_)
        for column, eps in enumerate(self._eps):
            open_ = (verdicts.status[:, column] == Status.UNKNOWN) & verdicts.clean & ~failed
            rows = np.flatnonzero(open_).astype(np.int64)
            proved = self._proves(images, verdicts.labels, rows, eps)
            failed[rows[~proved]] = True
            rows = rows[proved]
            verified = self._verifies(images, verdicts.labels, rows, eps)
            self._record(verdicts, rows[verified], column, own, Level.VERIFIED)
            self._record(verdicts, rows[~verified], column, own, self._method.level)

    def _proves(self, images: Images, labels: Ints, rows: Ints, eps: float) -> Mask:
        """Return which of some samples have positive margins on their balls."""
        found = [np.zeros(0, dtype=np.bool_)]
        for start in range(0, len(rows), self._batch):
            part = rows[start : start + self._batch]
            with full_precision():
                margins = self._method.margins(self._view, *self._placed(images, labels, part, eps))
            found.append((margins.amin(dim=1) > 0).cpu().numpy())
        return np.concatenate(found)

    def _placed(self, images: Images, labels: Ints, rows: Ints, eps: float) -> tuple[Ball, torch.Tensor]:
        """Return the balls around some samples and their labels, where the view is."""
        ball = Ball.around(self._view.place(torch.from_numpy(images[rows])), eps, self._norm)
        return ball, torch.from_numpy(labels[rows]).to(self._view.device)

    def _verifies(self, images: Images, labels: Ints, rows: Ints, eps: float) -> Mask:
        """Return which of some samples have margins that are positive at level verified."""
        if self._evaluator is None:
            return np.zeros(len(rows), dtype=np.bool_)
        verified = np.zeros(len(rows), dtype=np.bool_)
        for propose in (lambda *_: NOTHING, self._method.propose):  # what needs no proposal is spared the price of one
            left = np.flatnonzero(~verified)
            for start in range(0, len(left), DERIVED_AT_ONCE):
                part = left[start : start + DERIVED_AT_ONCE]
                with full_precision():
                    proposal = propose(self._view, *self._placed(images, labels, rows[part], eps))
                if proposal is not None:
                    region = Region.around(images[rows[part]], eps, self._norm)
                    verified[part] = self._derives(self._evaluator, region, labels[rows[part]], proposal)
        return verified

    def _derives(self, evaluator: Evaluator, region: Region, labels: Ints, proposal: Proposal) -> Mask:
        try:
            margins = self._method.verified_margins(evaluator, region, labels, proposal)
        except Refused as refusal:
            raise InconclusiveError(f"nothing can be verified: {refusal}") from None
        positive: Mask = margins.min(axis=1) > 0
        return positive

    def _record(self, verdicts: Verdicts, rows: Ints, column: int, own: int, level: Level) -> None:
        verdicts.level[rows, column] = np.maximum(verdicts.level[rows, column], level)
        if level < self._required:
            self._uncounted[column] += len(rows)
            return
        verdicts.status[rows, column] = Status.CERTIFIED
        verdicts.stage[rows, column] = own
        verdicts.radius[rows] = np.maximum(verdicts.radius[rows], self._eps[column])
