r"""The stages of a regression run: intervals that hold every output on the ball around a sample.

For each output j, an interval [lo, hi] holds f_j(x') for every x' of the ball, and
|f_j(x') - f_j(x)| <= max(hi - f_j(x), f_j(x) - lo). With the network of `tasks.both_signs` both ends are margins of its
last logit. They come from one Lipschitz bound per output and, where the network has verified local rules, from linear
bounds with optimised slopes (`alpha-crown`, which holds those of CROWN and of boxes); the better end counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.registry import find_local
from lipcert.bounds.local.view import View
from lipcert.bounds.torch_precision import full_precision
from lipcert.errors import InconclusiveError
from lipcert.network.enclosure import Float, round_up
from lipcert.proof.claims import Level, Norm
from lipcert.proof.local import Evaluator, Region
from lipcert.proof.refusal import Refused
from lipcert.robustness.basis import Basis
from lipcert.robustness.stages.batches import Batches
from lipcert.robustness.stages.clock import Clock
from lipcert.robustness.stages.stage import Images, Mask, Stage
from lipcert.robustness.verdicts import Changes, Status, Verdicts

LOCAL = "alpha-crown"
LARGEST = 64  # samples of a batch


@dataclass(frozen=True)
class Balls:
    """What all balls of a run have in common.

    Attributes:
        norm: of the balls. eps: ascending radii, in the units of the ball.
        moved: how far the centres may be from the samples as given.
    """

    norm: Norm
    eps: tuple[float, ...]
    moved: float

    def reach(self, column: int) -> float:
        """Return a radius around the centre that holds the ball around the sample as given."""
        return float(round_up(np.array(self.eps[column] + self.moved), 2))


class GlobalChanges(Stage):
    """Intervals from one Lipschitz bound per output; the first stage.

    Args of the constructor:
        basis: of the network in both signs. balls: of the run.
        alone: whether no other stage follows, so that its samples are done.
    """

    name = "global"

    def __init__(self, basis: Basis, balls: Balls, *, alone: bool) -> None:
        self._run, self._margins, self._balls, self._alone = basis.passes(0)[0], basis.margins, balls, alone
        self._last = basis.head.classes - 1

    def wants(self, verdicts: Verdicts) -> Mask:
        """All samples."""
        return np.ones(len(verdicts), dtype=np.bool_)

    def decide(self, images: Images, verdicts: Verdicts, own: int) -> None:
        """Bound every output.

        Raises:
            InconclusiveError: an output has no finite bound.
        """
        assert isinstance(verdicts, Changes)
        at_centre, slopes = self.at_centre(images)
        least, most = self.at_samples(images)
        for column in range(len(self._balls.eps)):
            reach = self._balls.reach(column)
            lower, upper = ends(_less(at_centre, slopes, reach))
            farthest = np.where(slopes > 0, round_up(slopes * reach), 0.0)[:, : lower.shape[1]]
            change = np.minimum(moved_at_most(lower, upper, least, most), farthest)
            if not all(np.isfinite(part).all() for part in (lower, upper, least, most)):
                raise InconclusiveError("an output has no finite bound: nothing can be said about its change")
            verdicts.lower[:, column], verdicts.upper[:, column] = lower, upper
            verdicts.change[:, column] = change
        verdicts.predicted[:] = 0
        if self._alone:
            bounded(verdicts, np.ones(len(verdicts), dtype=np.bool_), own)

    def at_centre(self, images: Images) -> tuple[Float, Float]:
        """Return (N, 2 m + 1) margins of the last logit at the centres, and their slopes."""
        last = np.full(len(images), self._last, dtype=np.int64)
        return self._margins.bounds(self._run(images), last)[0], self._margins.slopes[last]

    def at_samples(self, images: Images) -> tuple[Float, Float]:
        """Return (N, m) lower and upper bounds of the outputs at the samples as given."""
        return ends(_less(*self.at_centre(images), self._balls.moved))


class LocalChanges(Stage):
    """Intervals from linear bounds around each sample.

    Args of the constructor:
        view, evaluator: of the network in both signs. first: the stage before. balls: of the run. clock: of the run.
    """

    name = LOCAL

    def __init__(self, view: View, evaluator: Evaluator, first: GlobalChanges, balls: Balls, clock: Clock) -> None:
        self._view, self._evaluator, self._first, self._balls = view, evaluator, first, balls
        self._batches = Batches(view.device, LARGEST, clock)

    def decide(self, images: Images, verdicts: Verdicts, own: int) -> None:
        """Bound every output again; the better end counts."""
        assert isinstance(verdicts, Changes)
        least, most = self._first.at_samples(images)
        tried = np.ones(len(verdicts), dtype=np.bool_)
        for column in range(len(self._balls.eps)):
            reach, nothing = self._balls.reach(column), np.full(2 * least.shape[1] + 1, np.nan)

            def bound(part: slice, reach: float = reach) -> Float:
                return self._bound(images[part], reach)

            found = self._batches.run(len(images), bound, nothing)
            tried &= ~np.isnan(found).any(axis=1)
            lower, upper = ends(np.where(np.isnan(found), -np.inf, found))
            lower, upper = (
                np.maximum(verdicts.lower[:, column], lower),
                np.minimum(verdicts.upper[:, column], upper),
            )
            change = moved_at_most(lower, upper, least, most)
            verdicts.lower[:, column], verdicts.upper[:, column] = lower, upper
            verdicts.change[:, column] = np.minimum(verdicts.change[:, column], change)
        bounded(verdicts, tried, own)

    def remarks(self) -> tuple[str, ...]:
        """Say how many balls did not fit the memory."""
        failed = self._batches.failed
        return (f"'{self.name}' had too little memory for {failed} balls: the global bound serves",) if failed else ()

    def _bound(self, images: Images, eps: float) -> Float:
        """Return (N, 2 m + 1) margins of the last logit on the balls. Level: verified."""
        method, last = find_local(LOCAL), np.full(len(images), self._view.classes - 1, dtype=np.int64)
        ball = Ball.around(self._view.place(torch.from_numpy(images)), eps, self._balls.norm)
        with full_precision():
            proposal = method.bound(self._view, ball, torch.from_numpy(last)).proposal(torch.arange(len(images)))
        region = Region.around(images, eps, self._balls.norm)
        try:
            return method.verified_margins(self._evaluator, region, last, proposal)
        except Refused as refusal:
            raise InconclusiveError(f"nothing can be verified: {refusal}") from None


def ends(margins: Float) -> tuple[Float, Float]:
    """Return (N, m) least and largest outputs from margins (N, 2 m + 1) of -z, z and the last logit itself."""
    count = margins.shape[1] // 2
    return margins[:, count : 2 * count], -margins[:, :count]


def moved_at_most(lower: Float, upper: Float, least: Float, most: Float) -> Float:
    """Return upper bounds of |f_j(x') - f_j(x)|, from the ends of f_j on the ball and at the sample."""
    moves = np.maximum(upper - least, most - lower)
    found: Float = np.where(moves > 0, round_up(moves), 0.0)
    return found


def bounded(verdicts: Changes, rows: Mask, own: int) -> None:
    """Mark samples as bounded by all stages."""
    verdicts.status[rows], verdicts.level[rows], verdicts.stage[rows] = Status.CERTIFIED, Level.VERIFIED, own


def _less(margins: Float, slopes: Float, eps: float) -> Float:
    """Return margins minus slopes times eps, rounded down; zero slopes take nothing."""
    moves = np.where(slopes > 0, round_up(slopes * eps), 0.0)
    lowered: Float = np.where(moves > 0, np.nextafter(margins - moves, -np.inf), margins)
    return lowered
