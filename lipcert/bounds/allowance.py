"""How much time a piece of planning has, and how much work that is on the machine as it is now.

Estimates (`bounds.effort`) are seconds of a quiet core. Where others use the cores too, the same work takes longer by
the clock on the wall: by as much as the wall's seconds since the phase began exceed the process's own processor time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

MEASURED = 0.1  # seconds of a phase from which on its slowdown says something
MOST = 10.0  # times: beyond it a process waits for a disk rather than for others


@dataclass(frozen=True)
class Phase:
    """Runs from its making on.

    Attributes:
        wall, cpu: seconds on the wall, and of this process's processor time on all threads together.
    """

    wall: Callable[[], float] = time.monotonic
    cpu: Callable[[], float] = time.process_time
    _began: list[float] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        """Look at both clocks."""
        self._began.extend((self.wall(), self.cpu()))

    @property
    def seconds(self) -> float:
        """Seconds on the wall since it began."""
        return self.wall() - self._began[0]

    @property
    def slowdown(self) -> float:
        """Seconds on the wall per second of a quiet core so far: at least 1, and 1 where too little is measured."""
        wall, cpu = self.seconds, self.cpu() - self._began[1]
        if wall < MEASURED:
            return 1.0
        return max(1.0, wall / max(cpu, wall / MOST))


@dataclass(frozen=True)
class Allowance:
    """Seconds of a phase.

    Attributes:
        seconds: from the phase's beginning on, to plan with.
        is_limit: whether nothing may go on behind them.
        phase: measures.
    """

    seconds: float
    is_limit: bool
    phase: Phase = field(default_factory=Phase)

    @classmethod
    def of(cls, time_limit: float | None, otherwise: float) -> Allowance:
        """Return what a time limit allows, from now on; where there is none, `otherwise` is planned with."""
        return cls(otherwise, False) if time_limit is None else cls(time_limit, True)

    @property
    def left(self) -> float:
        """Seconds on the wall that are left, not below 0."""
        return max(self.seconds - self.phase.seconds, 0.0)

    @property
    def work(self) -> float:
        """Seconds of a quiet core that fit into what is left; without a limit nobody waits for others."""
        return self.left / self.phase.slowdown if self.is_limit else self.left

    def spares(self, seconds: float) -> bool:
        """Whether so many more seconds on the wall are left, or there is no limit."""
        return not self.is_limit or seconds < self.left

    def affords(self, work: float) -> bool:
        """Whether so many seconds of a quiet core fit into what is left, or there is no limit."""
        return not self.is_limit or work <= self.work

    def part(self, share: float) -> Allowance:
        """Return a share of what is left, measured by the same phase."""
        return replace(self, seconds=self.phase.seconds + share * self.left)

    def less(self, seconds: float) -> Allowance:
        """Return what is left when so many seconds are kept back."""
        return replace(self, seconds=self.seconds - seconds)
