"""The time limit, looked at wherever something long begins."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field


class TimeUp(Exception):
    """The time limit was reached; what has been found so far is still good."""


@dataclass(frozen=True)
class Clock:
    """Seconds since it was made, and a limit on them."""

    limit: float = math.inf
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Seconds since the clock was made."""
        return time.monotonic() - self.began

    @property
    def is_up(self) -> bool:
        """Whether the limit is reached."""
        return self.limit < math.inf and self.seconds >= self.limit

    def check(self) -> None:
        """Go on only before the limit.

        Raises:
            TimeUp: it is reached.
        """
        if self.is_up:
            raise TimeUp
