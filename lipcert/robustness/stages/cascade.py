"""The cascade: stages in order, each on what the ones before it left open, within the time that there is."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from lipcert.network.enclosure import Float
from lipcert.robustness.stages.clock import Clock
from lipcert.robustness.stages.stage import Images, Mask, Stage
from lipcert.robustness.verdicts import Ints, Status, Verdicts


class Cascade:
    """Stages in order, with the time that each took.

    Args of the constructor:
        stages: cheap ones first; the first looks at every sample and is always run.
        eps: the radii. clock: of the run.

    Attributes:
        stages, eps: as given.
        seconds: of each stage so far. looked: how many samples each stage looked at.
        samples: how many went through so far.
    """

    def __init__(self, stages: Sequence[Stage], eps: Sequence[float], clock: Clock | None = None) -> None:
        self.stages, self.eps, self._clock = tuple(stages), tuple(eps), clock or Clock()
        self.seconds, self.looked = [0.0] * len(stages), [0] * len(stages)
        self.samples = self._cut = self._spared = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the stages."""
        return tuple(stage.name for stage in self.stages)

    def decide(self, images: Images, verdicts: Verdicts) -> Mask:
        """Let each stage decide a batch, in place.

        Returns:
            (N,) which samples are done: all but those that the end of the run's time left open.
        """
        spent = np.zeros(len(verdicts))
        cut, spared = (np.zeros(len(verdicts), dtype=np.bool_) for _ in range(2))
        for position, stage in enumerate(self.stages):
            wanted = stage.wants(verdicts)
            if position:
                over = wanted & self._too_dear(position, spent)
                spared |= over
                wanted &= ~over
            rows = np.flatnonzero(wanted)
            if position and self._clock.expired:
                cut[rows] = True
            elif len(rows):
                spent[rows] += self._run(position, images, verdicts, rows) / len(rows)
                if position and self._clock.expired:
                    cut[rows] = True
        self.samples += len(verdicts)
        open_ = (verdicts.status == Status.UNKNOWN).any(axis=1)
        self._cut += int((cut & open_).sum())
        self._spared += int((spared & open_ & ~cut).sum())
        done: Mask = ~(cut & open_)
        return done

    def remarks(self) -> tuple[str, ...]:
        """Return what a reader of the report should know of the stages' work and of what time did not suffice for."""
        said = list(self.lasting())
        if self._cut:
            said.append(
                f"the time limit of {self._clock.limit:g} s left {self._cut} samples open: they count as unknown, and "
                "--resume goes on with them"
            )
        return tuple(said)

    def lasting(self) -> tuple[str, ...]:
        """Return the remarks that stay true when a later run does what time left open."""
        said = [remark for stage in self.stages for remark in stage.remarks()]
        if self._spared:
            said.append(
                f"{self._spared} samples would have cost more than {self._clock.per_sample:g} s each: what is left of "
                "them is unknown"
            )
        return tuple(said)

    def _run(self, position: int, images: Images, verdicts: Verdicts, rows: Ints) -> float:
        """Let one stage decide some samples; return the seconds."""
        stage, start = self.stages[position], time.perf_counter()
        if len(rows) == len(verdicts):
            stage.decide(images, verdicts, position)
        else:
            part = verdicts.take(rows)
            stage.decide(images[rows], part, position)
            verdicts.put(rows, part)
        seconds = time.perf_counter() - start
        self.seconds[position] += seconds
        self.looked[position] += len(rows)
        return seconds

    def _too_dear(self, position: int, spent: Float) -> Mask:
        """Return which samples a stage would take beyond what may be spent on each, going by what it took so far."""
        budget, looked = self._clock.per_sample, self.looked[position]
        if budget is None:
            return np.zeros(len(spent), dtype=np.bool_)
        expected = self.seconds[position] / looked if looked else 0.0
        dear: Mask = spent + expected > budget
        return dear
