"""The end of a run of several processes: what each of them found becomes one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from lipcert.robustness.merge import SHARDS, merge, write_records
from lipcert.robustness.processes import Processes
from lipcert.robustness.records import FILE, Log
from lipcert.robustness.verdicts import Verdicts


def unite(
    processes: Processes, log: Log, left: Verdicts, remarks: Sequence[str], folder: Path | None
) -> tuple[Log, tuple[str, ...]]:
    """Return what all processes know as one, and all their remarks; each of them gets it, the first one writes it.

    Args:
        processes: of the run.
        log: what this process knows. left: verdicts on samples that its time left open: they are in what is returned,
            but not in the file, so that a run with `resume` does them.
        remarks: of this process.
        folder: of the run. The files of the shards in it are removed once everything stands in one.

    Raises:
        UsageError: the records cannot be written.
        InconclusiveError: another process is gone.
    """
    found = processes.gather((log, left, tuple(remarks)))
    whole, open_ = merge([each for each, _, _ in found]), Verdicts.join([each for _, each, _ in found])
    if folder is not None and processes.size > 1:
        if processes.first:
            write_records(folder / FILE, whole)
        processes.gather(None)  # from here on the file is there
        for path in folder.glob(f"{SHARDS}/{FILE}"):
            with suppress(OSError):  # another process of this machine was faster, or does not allow it
                path.unlink()
                path.parent.rmdir()
    keys = np.concatenate([whole.keys, np.full(len(open_), "")])
    said = dict.fromkeys(remark for _, _, each in found for remark in each)
    return replace(whole, verdicts=Verdicts.join([whole.verdicts, open_]), keys=keys), tuple(said)
