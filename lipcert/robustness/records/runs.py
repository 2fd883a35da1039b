"""Several runs side by side: other models, methods or settings on the same samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from lipcert.errors import UsageError
from lipcert.files import read_whole
from lipcert.results import Report, RunRow, RunsResult
from lipcert.robustness.records.lines import Log
from lipcert.robustness.records.merge import merge, read_folder
from lipcert.robustness.verdicts import Status

FILE = "report.json"


def compare_runs(paths: Sequence[Path]) -> RunsResult:
    """Read reports and set them side by side.

    Args:
        paths: of report folders or of their JSON documents; at least two.

    Raises:
        UsageError: one is missing or no report, or they are about different norms.
    """
    if len(paths) < 2:
        raise UsageError("there is nothing to compare: give two or more folders of reports")
    reports = [_read(path) for path in paths]
    norms = {report.norm for report in reports}
    if len(norms) > 1:
        raise UsageError(
            f"the reports are about different norms ({', '.join(sorted(norms))}): radii cannot be compared"
        )
    samples = {(r.provenance.samples_sha256, r.provenance.settings.get("shard"), r.samples) for r in reports}
    same = len(samples) == 1 and reports[0].provenance.samples_sha256 is not None
    logs = [_log(path) if same else None for path in paths]
    rows = [_row(path, report, _changes(logs[0], log)) for path, report, log in zip(paths, reports, logs, strict=True)]
    return RunsResult(
        norm=reports[0].norm,
        eps=tuple(sorted({eps for report in reports for eps in report.eps})),
        same_samples=same,
        rows=tuple(rows),
        notes=tuple(_notes(reports, same)),
    )


def _read(path: Path) -> Report:
    file = path / FILE if path.is_dir() else path
    if path.is_dir() and not file.exists() and read_folder(path):
        raise UsageError(
            f"the folder '{path}' has records and no {FILE}: make a report of them first, lipcert report merge {path} "
            "--out DIR"
        )
    content = read_whole(file, "report")
    try:
        return Report.model_validate_json(content)
    except ValidationError:
        raise UsageError(f"'{file}' is not a report of `lipcert certify`, or of another version of lipcert") from None


def _log(path: Path) -> Log | None:
    """Return the records beside a report, where there are any."""
    found = read_folder(path if path.is_dir() else path.parent)
    return merge(found) if found else None


def _row(path: Path, report: Report, changes: tuple[dict[str, int], dict[str, int]] | None) -> RunRow:
    return RunRow(
        name=str(path),
        model=report.model,
        method=report.method,
        level=report.level,
        samples=report.samples,
        clean_count=report.clean_count,
        certified_count=report.certified_count,
        attacked_count=report.attacked_count,
        unknown_count=report.unknown_count,
        mean_certified_radius=report.mean_certified_radius,
        bound=report.bound.bound,
        lower_bound=report.bound.lower_bound,
        curve=report.curve,
        per_method=report.per_method,
        seconds=report.seconds,
        samples_per_second=report.samples_per_second,
        device=report.device,
        gained=None if changes is None else changes[0],
        lost=None if changes is None else changes[1],
    )


def _changes(first: Log | None, log: Log | None) -> tuple[dict[str, int], dict[str, int]] | None:
    """Count the samples that only one of two runs certifies, at each eps that both have."""
    if first is None or log is None or log is first:
        return None
    if not np.array_equal(first.verdicts.index, log.verdicts.index):
        return None
    gained, lost = {}, {}
    for column, key in enumerate(log.heading.keys):
        if key in first.heading.keys:
            before = first.verdicts.status[:, first.heading.keys.index(key)] == Status.CERTIFIED
            after = log.verdicts.status[:, column] == Status.CERTIFIED
            gained[key], lost[key] = int((after & ~before).sum()), int((before & ~after).sum())
    return gained, lost


def _notes(reports: Sequence[Report], same: bool) -> list[str]:
    notes = []
    if not same:
        counts = ", ".join(f"{report.samples} of {report.provenance.data}" for report in reports)
        notes.append(f"the runs are about different samples ({counts}): their fractions do not compare the models")
    levels = sorted({report.level for report in reports})
    if len(levels) > 1:
        notes.append(f"the runs count proofs of different levels: {', '.join(levels)}")
    machines = {(report.provenance.platform, report.device) for report in reports}
    if len(machines) > 1:
        notes.append("the runs were made on different machines or devices: their times do not compare the methods")
    return notes
