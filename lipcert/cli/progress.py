"""How far a run is: a bar where there is a terminal, and what Ctrl-C leaves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from lipcert.cli import show
from lipcert.cli.command import Interrupted
from lipcert.cli.partial import write_partial

Advance = Callable[[int, int], None]
BETWEEN = 30.0  # seconds between two lines in a log


class Tracker:
    """Takes (samples done, samples in all), hands them on, and knows what to say when the run is cut off."""

    def __init__(self, advance: Advance) -> None:
        self._advance, self._done, self._total = advance, 0, 0

    def __call__(self, done: int, total: int) -> None:
        """Take how far the run is."""
        self._done, self._total = done, total
        self._advance(done, total)

    def interrupt(self, folder: Path | None) -> NoReturn:
        """Say what Ctrl-C has left; `folder` is where records are written, if they are."""
        from lipcert.report import numbers

        if not self._total:
            raise Interrupted(
                "interrupted while the network was bounded, before the first sample; --time-limit S or --method "
                "product take less time",
                resumable=False,
            )
        done = f"{numbers.count(self._done)} of {numbers.count(self._total)} samples"
        if folder is not None:
            page = write_partial(folder) if self._done else None
            shown = "" if page is None else f", see '{page}'"
            raise Interrupted(f"interrupted: {done} are done and kept{shown}", resumable=True)
        lost = "with --report DIR they would be kept, and --resume would go on from there"
        raise Interrupted(f"interrupted: {done} were done and are lost; {lost}", resumable=False)


@contextmanager
def tracked(*, quiet: bool, folder: Path | None) -> Iterator[Tracker]:
    """Give a tracker that moves a bar where there is a terminal; raises Interrupted on Ctrl-C.

    Args:
        quiet: nothing is shown. folder: where records are written, if they are.
    """
    with _bar(quiet=quiet) as advance:
        tracker = Tracker(advance)
        try:
            yield tracker
        except KeyboardInterrupt:
            tracker.interrupt(folder)


class Lines:
    """Tells on a line of its own how far the run is, now and then: for logs, where a bar would be noise."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._told = clock, clock()
        self._start: tuple[int, float] | None = None  # samples of an earlier run that is resumed, and when it began

    def __call__(self, done: int, total: int) -> None:
        """Take how far the run is."""
        from lipcert.report import numbers

        now = self._clock()
        first, start = self._start = self._start or (done, now)
        if now - self._told < BETWEEN:
            return
        self._told = now
        rate = (done - first) / (now - start) if now > start else 0.0
        left = f", {numbers.near(rate)}/s, {numbers.duration((total - done) / rate)} left" if rate else ""
        show.remark(f"{numbers.count(done)} of {numbers.count(total)} samples{left}", quiet=False)


@contextmanager
def _bar(*, quiet: bool) -> Iterator[Advance]:
    """Give a function that moves a bar with rate and time left, or, where there is no terminal, writes lines."""
    if quiet:
        yield lambda done, total: None
        return
    if not show.has_bars(quiet=quiet):
        yield Lines()
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from lipcert.report import numbers

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=show.console(stderr=True), transient=True) as bars:
        task = bars.add_task("bounding the network", total=None, rate="", left="")

        def advance(done: int, total: int) -> None:
            speed = bars.tasks[task].speed
            rate = "" if not speed else f"{numbers.near(speed)}/s"
            bars.update(task, description="certifying", completed=done, total=total, rate=rate, left="left:")

        yield advance
