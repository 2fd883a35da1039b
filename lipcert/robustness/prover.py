"""What one local method proves of samples: positive margins on balls, at a level.

Methods propose, usually in float32. Where the run asks for level verified and the method can (`LocalMethod.derived`),
what it proves is derived again with every rounding error counted, and only that counts.

Verdicts do not depend on which samples share a batch: bounds so close to zero that the rounding of another batch size
could turn them are computed again, each sample alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from lipcert.bounds.local.method import LocalMethod
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.view import View
from lipcert.bounds.torch_precision import full_precision
from lipcert.errors import InconclusiveError
from lipcert.network.enclosure import Float
from lipcert.proof.claims import Level, Norm
from lipcert.proof.local import NOTHING, Evaluator, Proposal, Region
from lipcert.proof.refusal import Refused
from lipcert.robustness.batches import Batches
from lipcert.robustness.margins import least
from lipcert.robustness.verdicts import Codes, Ints

Images = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

LARGEST, LARGEST_ON_GPU = 200, 4000  # samples of a batch
DERIVED_AT_ONCE = 16  # samples
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


class Prover:
    """Proves margins positive by one method.

    Args of the constructor:
        view: the network. method: serves it.
        norm: of the balls.
        rank: of the rival that must stay below the label: 1, every one; k, all but k - 1 (`--top-k`).
        evaluator: derives what the method proves, at level verified; None where that is not asked for.
    """

    def __init__(
        self, view: View, method: LocalMethod, norm: Norm, rank: int = 1, evaluator: Evaluator | None = None
    ) -> None:
        self.method, self._view, self._norm, self._rank, self._evaluator = method, view, norm, rank, evaluator
        on_gpu = view.device.type == "cuda"
        self._proposing = Batches(view.device, LARGEST_ON_GPU if on_gpu else LARGEST)
        self._deriving = Batches(torch.device("cpu"), DERIVED_AT_ONCE)

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
        proved = np.flatnonzero(self._positive(self._proposing, balls, self._proposed))
        found[proved] = self.method.level
        if self._evaluator is not None:
            found[proved[self._verifies(self._evaluator, balls.take(proved))]] = Level.VERIFIED
        return found

    def _verifies(self, evaluator: Evaluator, balls: Balls) -> Mask:
        """Return which samples have positive margins at level verified."""
        verified = np.zeros(len(balls), dtype=np.bool_)
        for own in (False, True):  # what needs no proposal is spared the price of one
            for eps in np.unique(balls.eps):  # a region has one radius
                left = np.flatnonzero(~verified & (balls.eps == eps))

                def derive(part: Balls, own: bool = own) -> Float:
                    return self._derived(evaluator, part, own=own)

                verified[left] = self._positive(self._deriving, balls.take(left), derive)
        return verified

    def _positive(self, batches: Batches, balls: Balls, bound: Callable[[Balls], Float]) -> Mask:
        """Return which samples have a positive bound, whatever batch they are in."""
        nothing = np.array([-np.inf, 0.0])
        found = batches.run(len(balls), lambda part: bound(balls.take(part)), nothing)
        worst, scale = found[:, 0], found[:, 1]
        for row in np.flatnonzero(np.abs(worst) <= CLOSE * scale).tolist():
            one = balls.take(slice(row, row + 1))
            worst[row] = batches.run(1, lambda part, one=one: bound(one.take(part)), nothing)[0, 0]  # type: ignore[misc]
        positive: Mask = worst > 0
        return positive

    def _proposed(self, balls: Balls) -> Float:
        """Return (N, 2) the bound that decides, and the largest of the margins' bounds in size."""
        with full_precision():
            margins = self.method.margins(self._view, *self._placed(balls))
        return self._summed_up(margins.double().cpu().numpy())

    def _derived(self, evaluator: Evaluator, balls: Balls, *, own: bool) -> Float:
        """Return the same at level verified, for balls of one radius; `own`: from what the method proposes."""
        proposal: Proposal | None = NOTHING
        if own:
            with full_precision():
                proposal = self.method.propose(self._view, *self._placed(balls))
        if proposal is None:
            return np.full((len(balls), 2), [-np.inf, 0.0])
        region = Region.around(balls.images, float(balls.eps[0]), self._norm)
        try:
            return self._summed_up(self.method.verified_margins(evaluator, region, balls.labels, proposal))
        except Refused as refusal:
            raise InconclusiveError(f"nothing can be verified: {refusal}") from None

    def _summed_up(self, margins: Float) -> Float:
        sizes = np.where(np.isfinite(margins), np.abs(margins), 0.0).max(axis=1)
        return np.stack([least(margins, self._rank), sizes], axis=1)

    def _placed(self, balls: Balls) -> tuple[Ball, torch.Tensor]:
        """Return the balls and the labels, where the view is."""
        centre = self._view.place(torch.from_numpy(balls.images))
        radii = torch.from_numpy(balls.eps).to(self._view.device)
        return Ball.around(centre, radii, self._norm), torch.from_numpy(balls.labels).to(self._view.device)
