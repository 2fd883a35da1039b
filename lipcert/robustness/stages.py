"""The stages of a run: each gives verdicts on samples that earlier ones left open, cheap ones first.

A new stage (a local bound, a branch and bound) is one class here or in a file of its own, added to the list in
`certifier`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lipcert.network.enclosure import Float
from lipcert.proof.claims import Level
from lipcert.robustness.attack import Attacker
from lipcert.robustness.forward import ForwardPass
from lipcert.robustness.margins import RADIUS_CAP, Labels, Margins, correct
from lipcert.robustness.verdicts import Status, Verdicts

Images = npt.NDArray[np.float32]


class Stage(ABC):
    """One way to decide samples.

    Attributes:
        name: in reports and records.
    """

    name: str

    @abstractmethod
    def decide(self, images: Images, verdicts: Verdicts, own: int) -> None:
        """Decide what can be decided, in place.

        Args:
            images: (N, *input_shape) float32.
            verdicts: about these samples.
            own: position of this stage, to be written beside each verdict it gives.
        """

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

    def _try(
        self, run: ForwardPass, images: Images, verdicts: Verdicts, rows: Labels, right: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.bool_]:
        """Run some samples; return which of them deserve the next pass, if there is one."""
        forward, labels = run(images if len(rows) == len(images) else images[rows]), verdicts.labels[rows]
        logits, (lower, upper) = forward.logits, self._margins.bounds(forward, labels)
        finite = np.isfinite(logits).all(axis=1)
        verdicts.predicted[rows] = np.where(finite, logits.argmax(axis=1), -1)
        right[rows] = correct(logits, labels) & finite
        radius = self._margins.radii(lower, labels, forward.deployed)
        verdicts.radius[rows] = radius
        ceiling = self._margins.ceiling(upper, labels, forward.deployed)
        open_ = np.asarray(((radius[:, None] < self._eps) & ~(ceiling[:, None] < self._eps)).any(axis=1))
        if run is self._passes[-1]:
            open_[:] = False
        lost = (ceiling - radius)[~open_ & (ceiling < RADIUS_CAP)]
        self._slack = max(self._slack, float(lost.max(initial=0.0)))
        return open_


class AttackStage(Stage):
    """Projected gradient attacks on what is not certified, smallest eps first."""

    name = "attack"

    def __init__(self, attacker: Attacker, eps: Sequence[float]) -> None:
        self._attacker, self._eps = attacker, tuple(eps)

    def decide(self, images: Images, verdicts: Verdicts, own: int) -> None:
        """Mark samples as attacked at every eps that reaches an adversarial input that was found."""
        for column, eps in enumerate(self._eps):
            rows = np.flatnonzero((verdicts.status[:, column] == Status.UNKNOWN) & verdicts.clean)
            if not len(rows):
                continue
            broken, _ = self._attacker.run(images[rows], verdicts.labels[rows], eps)
            for later in range(column, len(self._eps)):  # a ball of larger eps holds the same input
                hit = rows[broken]
                verdicts.status[hit, later] = Status.ATTACKED
                verdicts.stage[hit, later] = own


class Cascade:
    """Stages in order, with the time that each took.

    Attributes:
        stages: cheap ones first.
        eps: the radii.
        seconds: of each stage so far.
        samples: how many went through so far.
    """

    def __init__(self, stages: Sequence[Stage], eps: Sequence[float]) -> None:
        self.stages, self.eps = tuple(stages), tuple(eps)
        self.seconds, self.samples = [0.0] * len(stages), 0

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the stages."""
        return tuple(stage.name for stage in self.stages)

    def decide(self, images: Images, verdicts: Verdicts) -> None:
        """Let each stage decide a batch, in place."""
        for position, stage in enumerate(self.stages):
            start = time.perf_counter()
            stage.decide(images, verdicts, position)
            self.seconds[position] += time.perf_counter() - start
        self.samples += len(verdicts)


def certified_share(radius: Float, eps: float) -> float:
    """Return the fraction of samples with a positive radius of at least eps."""
    return float(np.mean((radius >= eps) & (radius > 0))) if len(radius) else 0.0
