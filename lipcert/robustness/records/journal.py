"""The records of a run that is going on: what earlier runs did already, and the file that grows.

A process that has a shard of its own in a run of several writes to ``shard-I-of-N`` in the folder of the run. Whatever
the sharding was, all records of the folder are used.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

from lipcert.errors import UsageError
from lipcert.results import Heading, Part
from lipcert.robustness.data.dataset import Dataset
from lipcert.robustness.data.streams import Images
from lipcert.robustness.records.lines import (
    FILE,
    Found,
    Log,
    batch_lines,
    heading_line,
    no_verdicts,
    read_records,
    sample_keys,
)
from lipcert.robustness.records.merge import SHARDS, merge, read_folder, write_records
from lipcert.robustness.verdicts import Ints, Verdicts

CHECKED = 1000  # samples whose keys are compared at a time


class Journal:
    """What is known of the samples of one process.

    Args of the constructor:
        heading: of the run.
        part: of this process, which did nothing yet.
        start: `time.perf_counter` at its start.
        folder: of the run, or None where nothing is written.
        own: folder of this process: that of the run, or a shard in it.

    Either `begin` or `resume` is called before the first `append`.
    """

    def __init__(self, heading: Heading, part: Part, start: float, folder: Path | None, own: Path | None) -> None:
        self._heading, self._part, self._start = heading, part, start
        self._folder, self.path = folder, None if own is None else own / FILE
        self._logs = [no_verdicts(heading)]
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        if error is None:
            os.fsync(self._file.fileno())
        self._file.close()
        if error is None and self._repeated:
            self._tidy()

    def resume(self, dataset: Dataset, index: Ints) -> Ints:
        """Take over what records hold of some samples; return the positions of those that are done.

        Args:
            dataset: in the network's input shape. index: positions that this process has to do.

        Raises:
            UsageError: records are damaged, or about another network, other settings or other data.
        """
        assert self._folder is not None and self.path is not None
        for log in read_folder(self._folder):
            self._logs.append(self._taken(log, dataset, index))
        found = read_records(self.path)
        if found is not None:
            self._reopen(found)
        else:
            self._write(b"")
        known = self.log().verdicts
        return known.index[~known.open]

    def begin(self) -> Ints:
        """Make the file afresh, and remove the records of earlier runs; return the positions of no samples.

        Raises:
            UsageError: the file cannot be written.
        """
        nothing = np.zeros(0, dtype=np.int64)
        if self._folder is None or self.path is None:
            return nothing
        siblings = "" if self.path.parent == self._folder else "-of-" + self.path.parent.name.rpartition("-of-")[2]
        for path in (self._folder / FILE, *self._folder.glob(f"{SHARDS}/{FILE}")):
            if path != self.path and not (siblings and path.parent.name.endswith(siblings)):
                path.unlink(missing_ok=True)
        self._write(b"")
        return nothing

    def continued(self, fresh: Verdicts) -> Verdicts:
        """Return verdicts on samples to do: as given, or what records know of those that lack of time left open."""
        log = self.log()
        known, stages = log.verdicts, self._heading.stages
        if log.heading.stages[: len(stages)] == stages:  # else another device has other ones: from the start
            rows = np.flatnonzero(known.open & (known.stage < len(stages)).all(axis=1))
            rows = rows[np.isin(known.index[rows], fresh.index)]
            begun = known.take(rows)
            begun.pending &= (1 << len(stages)) - 1
            fresh.put(np.searchsorted(fresh.index, begun.index), begun)
        return fresh

    def append(
        self, verdicts: Verdicts, images: Images, seconds: Mapping[str, float], remarks: tuple[str, ...]
    ) -> None:
        """Add the verdicts of a batch and hand them to the operating system.

        Args:
            verdicts: on samples that are done, or that were looked at. images: (N, ...) float32, those samples.
            seconds: that each stage took since the process started. remarks: of the stages so far.
        """
        self._part = self._part.model_copy(
            update={
                "samples": self._part.samples + int((~verdicts.open).sum()),
                "elapsed": time.perf_counter() - self._start,
                "seconds": dict(seconds),
                "remarks": remarks,
            }
        )
        written = self.path is not None
        keys = sample_keys(self._heading, images, verdicts.labels) if written else np.full(len(verdicts), "")
        self._logs.append(Log(self._heading, verdicts, keys, {self._part.part: self._part}))
        if written:
            self._write(batch_lines(self._logs[-1]))

    @property
    def _repeated(self) -> bool:
        """Whether the file has several lines on one sample."""
        index = np.concatenate([log.verdicts.index for log in self._logs])
        return len(np.unique(index)) < len(index)

    def _tidy(self) -> None:
        """Write the file once more with one line for each sample."""
        assert self.path is not None
        found = read_records(self.path)
        if found is not None:
            write_records(self.path, merge([found.log]))

    def log(self) -> Log:
        """Return everything that is known of this process's samples."""
        part = self._part.model_copy(update={"elapsed": time.perf_counter() - self._start})
        return merge([replace(no_verdicts(self._heading), parts={part.part: part}), *self._logs])

    def _write(self, lines: bytes) -> None:
        assert self.path is not None
        try:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._open(0)
                lines = heading_line(self._heading) + lines
            assert self._file is not None
            self._file.write(lines)
            self._file.flush()
        except OSError as error:
            raise UsageError(f"cannot write the records '{self.path}': {error.strerror}") from None

    def _reopen(self, found: Found) -> None:
        """Open the file of this process for appending, behind what counts of it."""
        assert self.path is not None
        try:
            self._open(found.length)
            if found.log.heading.total < self._heading.total:  # the data grew: so does what the records are about
                assert self._file is not None
                self._file.close()
                write_records(self.path, self._about_this(found.log))
                self._open(self.path.stat().st_size)
        except OSError as error:
            raise UsageError(f"cannot write the records '{self.path}': {error.strerror}") from None

    def _open(self, length: int) -> None:
        """Open the file for this process alone, and cut it; raises OSError, and UsageError where another has it."""
        assert self.path is not None
        file = self.path.open("ab")
        if not locked(file):
            file.close()
            raise UsageError(f"another run is writing the records '{self.path}': wait for it, or choose another folder")
        file.truncate(length)
        self._file = file

    def _taken(self, log: Log, dataset: Dataset, index: Ints) -> Log:
        """Return the records of some samples, after comparing the samples with the data."""
        if log.heading.digest != self._heading.digest:
            raise UsageError(
                f"the records in '{self._folder}' belong to a run with another model or settings: choose another "
                "folder, or leave out --resume to start afresh"
            )
        rows = np.flatnonzero(np.isin(log.verdicts.index, index))
        verdicts, keys = log.verdicts.take(rows), log.keys[rows]
        for start in range(0, len(rows), CHECKED):
            part = slice(start, start + CHECKED)
            at, labels = verdicts.index[part], dataset.labels[verdicts.index[part]]
            other = sample_keys(self._heading, dataset.images[at], labels) != keys[part]
            if other.any():
                raise UsageError(
                    f"sample {at[other.argmax()]} of the records in '{self._folder}' is another one than in "
                    f"'{dataset.name}': they belong to a run with another data set; choose another folder, or leave "
                    "out --resume to start afresh"
                )
        return self._about_this(Log(log.heading, verdicts, keys, log.parts))

    def _about_this(self, log: Log) -> Log:
        """Return records with a heading that speaks of this run's data."""
        data = {"total": self._heading.total, "provenance": self._heading.provenance}
        return replace(log, heading=log.heading.model_copy(update=data))


def locked(file: IO[bytes]) -> bool:
    """Take a file for this process until it is closed; return whether no other process has it.

    Where the system has no such locks (not on every network disk, nor on Windows) nobody can be noticed.
    """
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return True
    return True
