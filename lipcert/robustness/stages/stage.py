"""What a stage of a run is, and the first one: it gives every sample a prediction and a radius.

Stages give verdicts on samples that earlier ones left open, cheap ones first. Which stages a run has, and why, says
`plan`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lipcert.network.enclosure import Float
from lipcert.proof.claims import Level
from lipcert.robustness.margins import RADIUS_CAP, Labels, Margins, correct
from lipcert.robustness.passes.forward import ForwardPass
from lipcert.robustness.verdicts import Status, Verdicts

Images = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


class Stage(ABC):
    """One way to decide samples.

    Attributes:
        name: in reports and records.
        work: multiplications per sample at most, or None: from them follows what a stage costs before it was run.
        cheap: whether it is tried on all samples before any later stage spends time on a few.
    """

    name: str
    work: float | None = None
    cheap: bool = False

    @abstractmethod
    def decide(self, images: Images, verdicts: Verdicts, own: int) -> None:
        """Decide what can be decided, in place.

        Args:
            images: (N, *input_shape) float32.
            verdicts: about these samples.
            own: position of this stage, to be written beside each verdict it gives.
        """

    def wants(self, verdicts: Verdicts) -> Mask:
        """Return (N,) which samples this stage looks at: those that are open at some eps."""
        wanted: Mask = verdicts.clean & (verdicts.status == Status.UNKNOWN).any(axis=1)
        return wanted

    def remarks(self) -> tuple[str, ...]:
        """Return what a reader of the report should know of this stage's work."""
        return ()


class GlobalStage(Stage):
    """Predictions, and radii from one Lipschitz bound.

    Samples whose verdict at some eps the rounding errors of a pass leave open go to the next pass. So verdicts are
    those of float64, while radii may be understated by what float32 rounds; the remarks say by how much at most.
    """

    name = "global"

    @staticmethod
    def probed(
        passes: Sequence[ForwardPass], margins: Margins, eps: Sequence[float], images: Images, labels: Labels
    ) -> GlobalStage:
        """Return a stage without the passes that leave most of some first samples open: they would be wasted.

        The choice depends on the data alone, so that every shard and every resumed run makes the same one.
        """
        stage = GlobalStage(passes, margins, eps)
        while len(stage._passes) > 1:
            rows = np.arange(len(labels))
            trial = Verdicts.unknown(rows, labels, len(stage._eps))
            if np.mean(stage._try(stage._passes[0], images, trial, rows, np.zeros(len(rows), dtype=np.bool_))) <= 0.5:
                break
            stage = GlobalStage(stage._passes[1:], margins, eps)
        return stage

    def __init__(self, passes: Sequence[ForwardPass], margins: Margins, eps: Sequence[float]) -> None:
        self._passes, self._margins, self._eps = passes, margins, np.array(eps)
        self._slack = 0.0

    def wants(self, verdicts: Verdicts) -> Mask:
        """All samples."""
        return np.ones(len(verdicts), dtype=np.bool_)

    def remarks(self) -> tuple[str, ...]:
        """Say how much of the radii float32 took."""
        if self._slack <= 1e-6 * self._eps.min():
            return ()
        return (
            f"radii are up to {self._slack:.2g} too low because of rounding in the forward passes; samples whose "
            "verdict that could change were done in float64",
        )

    def decide(self, images: Images, verdicts: Verdicts, own: int) -> None:
        """Give every sample a prediction and a radius; certify where the radius reaches eps."""
        rows = np.arange(len(verdicts))
        right = np.zeros(len(verdicts), dtype=np.bool_)
        for run in self._passes:
            open_ = self._try(run, images, verdicts, rows, right)
            rows = rows[open_]
            if not len(rows):
                break
        certified = right[:, None] & (verdicts.radius[:, None] >= self._eps)
        wrong = ~right & (verdicts.predicted >= 0)
        verdicts.radius[~right] = 0.0
        verdicts.status[certified] = Status.CERTIFIED
        verdicts.level[certified] = Level.VERIFIED if self._passes[0].deployed is None else Level.VERIFIED_EXEC
        verdicts.status[wrong] = Status.MISCLASSIFIED
        verdicts.stage[certified | wrong[:, None]] = own

    def _try(self, run: ForwardPass, images: Images, verdicts: Verdicts, rows: Labels, right: Mask) -> Mask:
        """Run some samples; return which of them deserve the next pass, if there is one."""
        forward, labels = run(images if len(rows) == len(images) else images[rows]), verdicts.labels[rows]
        logits, (lower, upper) = forward.logits, self._margins.bounds(forward, labels)
        finite = np.isfinite(logits).all(axis=1)
        verdicts.predicted[rows] = np.where(finite, logits.argmax(axis=1), -1)
        right[rows] = correct(logits, labels, self._margins.rank) & finite
        radius = self._margins.radii(lower, labels, forward.deployed)
        verdicts.radius[rows] = radius
        ceiling = self._margins.ceiling(upper, labels, forward.deployed)
        open_ = np.asarray(((radius[:, None] < self._eps) & ~(ceiling[:, None] < self._eps)).any(axis=1))
        if run is self._passes[-1]:
            open_[:] = False
        lost = (ceiling - radius)[~open_ & (ceiling < RADIUS_CAP)]
        self._slack = max(self._slack, float(lost.max(initial=0.0)))
        return open_


def certified_share(radius: Float, eps: float) -> float:
    """Return the fraction of samples with a positive radius of at least eps."""
    return float(np.mean((radius >= eps) & (radius > 0))) if len(radius) else 0.0
