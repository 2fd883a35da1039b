"""From records to the report on changes of outputs: one function, for a run and for a merge."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lipcert.files import write_whole
from lipcert.results import Heading, OutputChange, RegressionReport
from lipcert.robustness.records.lines import FILE, Log
from lipcert.robustness.summary import provenance_of, remarks_of, stages_of, time_note, untried
from lipcert.robustness.verdicts import Changes

INTERVALS = "intervals.npz"
UNTRIED = "they have the global bound, and what was found by then"


def make_changes_report(
    log: Log,
    shard: str | None = None,
    folder: Path | None = None,
    remarks: Sequence[str] = (),
) -> RegressionReport:
    """Return the report on what records hold.

    Args:
        log: the records of a regression run; at least one sample.
        shard: of the run, which did only a part on purpose.
        folder: where the records are, and where the intervals of all samples are written (``intervals.npz``).
        remarks: further notes.
    """
    heading, found = log.heading, log.verdicts
    assert isinstance(found, Changes)
    per_input, scale = (_numbers(heading, name, count) for name, count in _sizes(heading))
    records = None if folder is None else folder / FILE
    return RegressionReport(
        model=heading.model,
        samples=len(found),
        norm=heading.norm,
        eps=heading.eps,
        level=heading.level,
        methods=heading.stages,
        changes={key: _changes(found, column) for column, key in enumerate(heading.keys)},
        bound=heading.bound,
        per_input=per_input,
        scale=scale,
        seconds=sum(part.elapsed for part in log.parts.values()),
        intervals=None if folder is None else _save(folder / INTERVALS, heading, found),
        per_method=stages_of(heading, found, log.parts),
        untried_count=untried(heading, found),
        records=None if records is None else str(records),
        provenance=provenance_of(log, shard),
        notes=(*heading.notes, *remarks_of(log, shard, remarks), *time_note(found, records, UNTRIED)),
    )


def _sizes(heading: Heading) -> tuple[tuple[str, int], tuple[str, int]]:
    inputs = int(np.prod(heading.model.input_shape))
    return ("per_input", inputs), ("scale", heading.outputs or 0)


def _numbers(heading: Heading, name: str, count: int) -> tuple[float, ...]:
    """Return the units that a run was given, one number for each input or output."""
    given = json.loads(str(heading.provenance.settings[name]))
    return tuple(given) * (count if len(given) == 1 else 1)


def _changes(found: Changes, column: int) -> tuple[OutputChange, ...]:
    change, lower, upper = (part[:, column] for part in (found.change, found.lower, found.upper))
    return tuple(
        OutputChange(
            output=j,
            largest=float(change[:, j].max()),
            mean=float(change[:, j].mean()),
            lower=float(lower[:, j].min()),
            upper=float(upper[:, j].max()),
        )
        for j in range(change.shape[1])
    )


def _save(path: Path, heading: Heading, found: Changes) -> str:
    """Write the intervals of all samples: lower, upper and change (E, N, m), eps (E,), and positions (N,)."""
    arrays = {name: np.moveaxis(getattr(found, name), 1, 0) for name in ("lower", "upper", "change")}
    with write_whole(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, eps=np.array(heading.eps), index=found.index, **arrays)
    return str(path)
