"""The end of a run of several processes: what each of them found becomes one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from lipcert.robustness.records.lines import FILE, Log, read_records
from lipcert.robustness.records.merge import SHARDS, merge, write_records
from lipcert.robustness.records.processes import Processes


def unite(
    processes: Processes, log: Log, remarks: Sequence[str], home: tuple[Path | None, str | None]
) -> tuple[Log, tuple[str, ...]]:
    """Return what all processes know as one; each of them gets it, the first one writes it.

    Args:
        processes: of the run.
        log: what this process knows.
        remarks: of this process.
        home: folder of the run, or None, and its shard, where it does only a part on purpose. Otherwise what stands in
            files of shards in the folder is brought into one.

    Returns:
        The records of all, and all remarks.

    Raises:
        UsageError: the records cannot be written.
        InconclusiveError: another process is gone.
    """
    folder, shard = home
    found = processes.gather((log, tuple(remarks)))
    whole = merge([each for each, _ in found])
    if folder is not None and shard is None:
        if processes.first:
            _collect(folder, whole)
        processes.gather(None)  # from here on the file is there
        _tidy(folder)
    return whole, tuple(dict.fromkeys(remark for _, each in found for remark in each))


def _collect(folder: Path, whole: Log) -> None:
    """Write one file of all records of a run, where they stand in several."""
    if not list(folder.glob(f"{SHARDS}/{FILE}")):
        return
    there = read_records(folder / FILE)
    if there is None or there.log.heading.total <= whole.heading.total:  # else it knows more than this run asked for
        write_records(folder / FILE, whole)


def _tidy(folder: Path) -> None:
    """Remove the files of shards whose records stand in that of the run."""
    there = read_records(folder / FILE)
    for path in folder.glob(f"{SHARDS}/{FILE}"):
        part = read_records(path)
        if part is None or there is None or np.setdiff1d(part.log.keys, there.log.keys).size:
            continue
        with suppress(OSError):  # another process of this machine was faster, or does not allow it
            path.unlink()
            path.parent.rmdir()
