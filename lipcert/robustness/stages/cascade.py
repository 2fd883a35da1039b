"""The cascade: stages in order, each on what the ones before it left open, within the time that there is.

What a stage takes for a sample is known from the samples it looked at. Before that it is guessed from its work and the
time of others of similar work: a stage that would not even end its first sample in time is not begun.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lipcert.network.enclosure import Float
from lipcert.robustness.stages.clock import Clock
from lipcert.robustness.stages.stage import Images, Mask, Stage
from lipcert.robustness.verdicts import Ints, Status, Verdicts

NEAR = 100.0  # a stage of so many times less work says nothing of another one: other things take its time


@dataclass(frozen=True)
class Round:
    """One way through all samples.

    Attributes:
        stages: (S,) which are run. shared: whether each sample may take its share of the time that is left only.
    """

    stages: Mask
    shared: bool = False


class Cascade:
    """Stages in order, with the time that each took.

    Args of the constructor:
        stages: cheap ones first; the first looks at every sample and is always run.
        eps: the radii. clock: of the run.

    Attributes:
        stages, eps: as given.
        seconds: of each stage so far. looked: how many samples each stage looked at.
    """

    def __init__(self, stages: Sequence[Stage], eps: Sequence[float], clock: Clock | None = None) -> None:
        self.stages, self.eps, self._clock = tuple(stages), tuple(eps), clock or Clock()
        self.seconds, self.looked = [0.0] * len(stages), [0] * len(stages)
        self._spared = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the stages."""
        return tuple(stage.name for stage in self.stages)

    def rounds(self) -> tuple[Round, ...]:
        """Return the ways through the samples; with a time limit, each cheap stage is tried on all before the next."""
        every = np.ones(len(self.stages), dtype=np.bool_)
        if self._clock.limit is None:
            return (Round(every),)
        places = np.arange(len(self.stages))
        ends = [0, *(k for k in places.tolist() if k and self.stages[k].cheap)]
        return *(Round(places <= end) for end in ends), Round(every, shared=True), Round(every)

    def seconds_for(self, count: int) -> float:
        """Return the seconds that each of so many samples may still take; infinite without a time limit."""
        return max(0.0, self._clock.left) / max(1, count)

    @property
    def expired(self) -> bool:
        """Whether the run's time is over."""
        return self._clock.expired

    def decide(self, images: Images, verdicts: Verdicts, share: float = math.inf, pending: Mask | None = None) -> Mask:
        """Let each stage decide a batch, in place.

        Args:
            images: (N, *input_shape) float32. verdicts: on these samples.
            share: seconds that a sample may take now; a stage that takes it beyond is put off.
            pending: (N, stages) what to run, as returned for samples that have been through before; None for all.

        Returns:
            (N, stages) which stages have not looked at which samples, for lack of time or of this share of it, and
            might still decide something. A sample without any is done.
        """
        pending = np.ones((len(verdicts), len(self.stages)), dtype=np.bool_) if pending is None else pending
        spent, late, spared = np.zeros(len(verdicts)), np.zeros_like(pending), np.zeros(len(verdicts), dtype=np.bool_)
        budget = math.inf if self._clock.per_sample is None else self._clock.per_sample
        for position, stage in enumerate(self.stages):
            wanted = stage.wants(verdicts) & pending[:, position]
            if position:
                over = wanted & (spent + self._expected(position) > budget)
                spared |= over
                late[:, position] = wanted & ~over & self._put_off(position, spent, share)
                wanted &= ~over & ~late[:, position]
            rows = np.flatnonzero(wanted)
            if len(rows):
                spent[rows] += self._run(position, images, verdicts, rows) / len(rows)
                late[:, position] |= wanted & (position > 0) & self._clock.expired
        late &= self.wanted(verdicts)
        self._spared += int((spared & (verdicts.status == Status.UNKNOWN).any(axis=1) & ~late.any(axis=1)).sum())
        return late

    def wanted(self, verdicts: Verdicts) -> Mask:
        """Return (N, stages) which stages might still decide something."""
        return np.stack([stage.wants(verdicts) for stage in self.stages], axis=1)

    def remarks(self) -> tuple[str, ...]:
        """Return what a reader should know of the stages' work; it stays true when a later run does what is left."""
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

    def _put_off(self, position: int, spent: Float, share: float) -> Mask:
        """Return which samples a stage does not look at now: no time is left, or not enough for a single one."""
        if self._clock.expired or self._expected(position) > self._clock.left:
            return np.ones(len(spent), dtype=np.bool_)
        known = self._expected(position) if self.looked[position] else 0.0
        beyond: Mask = spent + known > share
        return beyond

    def _expected(self, position: int) -> float:
        """Return the seconds that a stage will take for a sample, as far as anything is known; else 0."""
        if self.looked[position]:
            return self.seconds[position] / self.looked[position]
        own = self.stages[position].work or math.inf
        rates = [  # the fastest one is trusted: others have things to set up
            seconds / (looked * stage.work)
            for stage, seconds, looked in zip(self.stages, self.seconds, self.looked, strict=True)
            if stage.work and looked and NEAR * stage.work >= own
        ]
        return own * min(rates) if rates else 0.0
