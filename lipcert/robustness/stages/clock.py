"""How much time a run has, as a whole and for each sample."""

from __future__ import annotations

import math
import time

CAUTION = 0.25  # of the time that is left, that work may take by what was measured: other samples may take longer


class Clock:
    """Runs from its making on.

    Args of the constructor:
        limit: seconds for the whole run, or None for as long as it takes.
        per_sample: seconds that the stages behind the global one may spend on one sample, or None.
    """

    def __init__(self, limit: float | None = None, per_sample: float | None = None) -> None:
        self.limit, self.per_sample = limit, per_sample
        self._start = time.monotonic()

    @property
    def left(self) -> float:
        """Seconds that the run has left: infinite without a limit, not above 0 when its time is over."""
        return math.inf if self.limit is None else self.limit - (time.monotonic() - self._start)

    @property
    def expired(self) -> bool:
        """Whether the run's time is over."""
        return self.left <= 0

    def samples(self, each: float) -> float:
        """Return for how many samples that take so many seconds there is time, with caution; at least 1."""
        return max(1.0, CAUTION * self.left / each) if each > 0 else math.inf


class Pace:
    """Sizes of batches that take about as long as is wanted: what a run that is cut off may lose.

    Args of the constructor:
        first, most: samples of the first batch, and of the largest.
        seconds: that a batch may take; it grows while it takes less than a third of that.
    """

    def __init__(self, first: int, most: int, seconds: float = 15.0) -> None:
        self._first, self._most, self._seconds = max(1, min(first, most)), max(1, most), seconds
        self.size = self._first

    def restart(self) -> None:
        """Begin with the first size again, as other work follows."""
        self.size = self._first

    def learn(self, done: int, seconds: float) -> None:
        """Choose the next size after a batch of `done` samples that took so long."""
        if seconds > self._seconds:
            self.size = max(1, int(done * self._seconds / seconds))
        elif done >= self.size and 3.0 * seconds < self._seconds:
            self.size = min(self._most, 2 * self.size)
