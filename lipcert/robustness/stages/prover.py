"""What one local method proves of samples: positive margins on balls, at a level.

Methods propose, usually in float32. Where the run asks for level verified and the method can (`LocalMethod.derived`),
what it proves is derived again with every rounding error counted, and only that counts.

Verdicts do not depend on which samples share a batch: bounds so close to zero that the rounding of another batch size
could turn them are computed again, each sample alone.

Hope: let a rival's margin be m at the sample and at least c on the ball by CROWN. A method has to shorten the way m - c
to m, to the share m / (m - c) of it. On real networks `alpha-crown` and `branching` shorten it to about a half at best,
`anchored` to an eighth on convolutions and large balls; where it takes far less, they are spared the work. That costs
verdicts at most, and is no proof.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from lipcert.bounds.local.method import Bounds, LocalMethod, Suggest
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.view import View
from lipcert.bounds.torch_precision import full_precision
from lipcert.errors import InconclusiveError
from lipcert.network.enclosure import Float
from lipcert.proof.claims import Level, Norm
from lipcert.proof.local import NOTHING, Evaluator, Proposal, Region
from lipcert.proof.refusal import Refused
from lipcert.robustness.margins import least
from lipcert.robustness.passes.execution import Execution
from lipcert.robustness.stages.batches import Batches
from lipcert.robustness.stages.clock import Clock
from lipcert.robustness.verdicts import Codes, Ints

Images = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

LARGEST, LARGEST_ON_GPU = 200, 4000  # samples of a batch
DERIVED_AT_ONCE = 16  # samples
HOPE = 0.08  # of the way that CROWN goes: of 245 balls on six networks, none below 0.12 was won
NO_BOUND = np.array([-np.inf, 0.0])  # of a ball that was not tried, and its scale
CLOSE = 1e-3  # of the largest margin: bounds this near to zero are computed alone


@dataclass(frozen=True)
class Balls:
    """Samples with the balls around them.

    Attributes:
        images: (N, *input_shape) float32. labels: (N,). eps: (N,) radii in raw input units.
    """

    images: Images
    labels: Ints
    eps: Float

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Ints | slice) -> Balls:
        """Return some of them."""
        return Balls(self.images[rows], self.labels[rows], self.eps[rows])


@dataclass(frozen=True)
class Ground:
    """What proofs of one run have in common.

    Attributes:
        view: the network. norm: of the balls. box: that cuts them, or None.
        rank: of the rival that must stay below the label: 1, every one; k, all but k - 1 (`--top-k`).
        evaluator: derives what a method proves, at level verified; None where that is not asked for.
        clock: of the run; nothing is proved when it has expired.
        execution: the deployed pass, whose rounding margins must outweigh at level verified-exec; else None.
    """

    view: View
    norm: Norm
    rank: int = 1
    evaluator: Evaluator | None = None
    clock: Clock | None = None
    box: tuple[float, float] | None = None
    execution: Execution | None = None

    @property
    def derived(self) -> Level:
        """The level of what is derived again."""
        return Level.VERIFIED if self.execution is None else Level.VERIFIED_EXEC


class Prover:
    """Proves margins positive by one method.

    Args of the constructor:
        method: serves the network of the ground.
        ground: of the run.
        sieve: CROWN, where samples without hope are left out; else None.

    Attributes:
        method: as given. hopeless: balls that were left out so far.
    """

    def __init__(self, method: LocalMethod, ground: Ground, sieve: LocalMethod | None = None) -> None:
        self.method, self._ground, self._sieve, self.hopeless = method, ground, sieve, 0
        self._evaluator = ground.evaluator if method.derived else None
        fit = method.at_once(ground.view) or LARGEST
        self._most = LARGEST_ON_GPU if ground.view.device.type == "cuda" else min(LARGEST, fit)
        self._proposing = Batches(ground.view.device, self._most, ground.clock)
        self._sieving = Batches(ground.view.device, self._most, ground.clock)
        self._deriving = Batches(torch.device("cpu"), min(DERIVED_AT_ONCE, fit), ground.clock)

    @property
    def out_of_time(self) -> bool:
        """Whether the run's time is over: what is not proved then was perhaps not tried."""
        return self._ground.clock is not None and self._ground.clock.expired

    @property
    def short_of_memory(self) -> int:
        """How often a single sample did not fit the memory; nothing is proved of it then."""
        return self._proposing.failed + self._deriving.failed

    def levels(self, balls: Balls) -> Codes:
        """Return (N,) the `Level` at which samples are proved stable; `ESTIMATE` where they are not.

        Raises:
            InconclusiveError: this process does not compute as proofs assume.
        """
        found = np.full(len(balls), Level.ESTIMATE, dtype=np.int8)
        tried = np.arange(len(balls))
        if self._sieve is not None:
            tried = np.flatnonzero(_positive(balls, self._hopes)[:, 0])
            self.hopeless += len(balls) - len(tried)
        proved = _positive(balls.take(tried), self._bounds)
        found[tried[proved[:, 0]]] = self.method.level
        found[tried[proved[:, 1]]] = self._ground.derived
        return found

    def _bounds(self, balls: Balls) -> Float:
        """Return (N, 2, 2) bounds at the level of the method, then at level verified, with their scales."""
        starts = range(0, len(balls), self._most)  # proposals are kept for so many balls at a time
        parts = [self._portion(balls.take(slice(start, start + self._most))) for start in starts]
        return np.concatenate([np.empty((0, 2, 2)), *parts])

    def _portion(self, balls: Balls) -> Float:
        kept: list[tuple[int, Bounds]] = []

        def propose(part: slice) -> Float:
            with full_precision():
                bounds = self.method.bound(self._ground.view, *self._placed(balls.take(part)))
            if self._evaluator is not None:
                kept.append((part.start, bounds))
            return self._summed_up(bounds.margins.double().cpu().numpy())

        found = np.stack([self._proposing.run(len(balls), propose, NO_BOUND), np.tile(NO_BOUND, (len(balls), 1))], 1)
        for start, bounds in kept:
            rows = np.flatnonzero(found[start : start + len(bounds.margins), 0, 0] > 0)
            found[start + rows, 1] = self._verified(balls.take(start + rows), bounds, rows)
        return found

    def _verified(self, balls: Balls, bounds: Bounds, rows: Ints) -> Float:
        """Return (N, 2) bounds at level verified of balls that are some rows of what a method found."""
        found = np.tile(NO_BOUND, (len(balls), 1))
        nothing: Suggest = lambda samples: NOTHING  # noqa: E731
        for suggest in (nothing, bounds.proposal):  # what needs no proposal is spared the price of one
            for eps in np.unique(balls.eps):  # a region has one radius
                left = np.flatnonzero((found[:, 0] <= 0) & (balls.eps == eps))

                def derive(part: slice, left: Ints = left, suggest: Suggest = suggest) -> Float:
                    with full_precision():
                        proposal = suggest(torch.from_numpy(rows[left[part]]).to(self._ground.view.device))
                    return self._derived(balls.take(left[part]), proposal)

                found[left] = self._deriving.run(len(left), derive, NO_BOUND)
        return found

    def _hopes(self, balls: Balls) -> Float:
        """Return (N, 1, 2) what `_hope` does."""
        return self._sieving.run(len(balls), lambda part: self._hope(balls.take(part)), NO_BOUND)[:, None]

    def _hope(self, balls: Balls) -> Float:
        """Return (N, 2) the share that would have to be enough, above `HOPE`, and its scale."""
        assert self._sieve is not None
        ball, labels = self._placed(balls)
        with full_precision(), torch.no_grad():
            bounds = self._sieve.margins(self._ground.view, ball, labels).double()
            logits = self._ground.view(ball.centre).double()
        margins = logits.gather(1, labels[:, None]) - logits
        share = torch.where(bounds > 0, torch.inf, margins / (margins - bounds)).cpu().numpy()
        worst = least(np.where(np.isnan(share), -np.inf, share), self._ground.rank)
        return np.stack([worst - HOPE, np.ones(len(worst))], axis=1)

    def _derived(self, balls: Balls, proposal: Proposal) -> Float:
        """Return (N, 2) the derived bound that decides, and its scale, for balls of one radius."""
        assert self._evaluator is not None
        region = Region.around(balls.images, float(balls.eps[0]), self._ground.norm, self._ground.box)
        try:
            found = self._summed_up(self.method.verified_margins(self._evaluator, region, balls.labels, proposal))
        except Refused as refusal:
            raise InconclusiveError(f"nothing can be verified: {refusal}") from None
        if self._ground.execution is not None:
            found[:, 0] = np.nextafter(found[:, 0] - self._ground.execution.loss(balls.images, balls.eps), -np.inf)
        return found

    def _summed_up(self, margins: Float) -> Float:
        """Return (N, 2) the bound that decides, and the largest of the margins' bounds in size."""
        sizes = np.where(np.isfinite(margins), np.abs(margins), 0.0).max(axis=1)
        return np.stack([least(margins, self._ground.rank), sizes], axis=1)

    def _placed(self, balls: Balls) -> tuple[Ball, torch.Tensor]:
        """Return the balls and the labels, where the view is."""
        centre = self._ground.view.place(torch.from_numpy(balls.images))
        radii = torch.from_numpy(balls.eps).to(self._ground.view.device)
        labels = torch.from_numpy(balls.labels).to(self._ground.view.device)
        return Ball.around(centre, radii, self._ground.norm, self._ground.box), labels


def _positive(balls: Balls, bound: Callable[[Balls], Float]) -> Mask:
    """Return (N, K) which bounds (N, K, 2), with their scales, are positive, whatever batch a sample is in."""
    found = bound(balls)
    close = (np.abs(found[..., 0]) <= CLOSE * found[..., 1]).any(axis=1)
    for row in np.flatnonzero(close).tolist():
        found[row] = bound(balls.take(slice(row, row + 1)))[0]
    positive: Mask = found[..., 0] > 0
    return positive
