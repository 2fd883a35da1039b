"""From records to the report: one function, for a run and for a merge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lipcert.network.enclosure import Float
from lipcert.results import ClassRow, Heading, Histogram, Part, Provenance, Report, StageResult
from lipcert.robustness.margins import RADIUS_CAP
from lipcert.robustness.records.lines import Log
from lipcert.robustness.stages.stage import certified_share
from lipcert.robustness.verdicts import Status, Verdicts

BINS = 40
CURVE_POINTS = 101
UNTRIED = "they count as unknown where nothing was decided"


def make_report(
    log: Log,
    shard: str | None = None,
    records: Path | None = None,
    remarks: Sequence[str] = (),
) -> Report:
    """Return the report on what records hold, without verdicts on requirements.

    Args:
        log: the records; at least one sample. Samples that are not in it are not in the report.
        shard: of the run, which did only a part on purpose.
        records: path of the per-sample file.
        remarks: further notes.
    """
    heading, verdicts, total = log.heading, log.verdicts, len(log.verdicts)
    certified, attacked = verdicts.count(Status.CERTIFIED), verdicts.count(Status.ATTACKED)
    clean, lowest = int(verdicts.clean.sum()), verdicts.lowest_level()
    stages, working = stages_of(heading, verdicts, log.parts), sum(sum(p.seconds.values()) for p in log.parts.values())
    return Report(
        model=heading.model,
        samples=total,
        norm=heading.norm,
        eps=heading.eps,
        clean_accuracy=clean / total,
        clean_count=clean,
        certified_accuracy=_shares(heading, certified, total),
        certified_count=counts_of(heading, certified),
        empirical_robust_accuracy=_shares(heading, clean - attacked, total) if heading.attacks else {},
        attacked_count=counts_of(heading, attacked) if heading.attacks else {},
        unknown_count=counts_of(heading, verdicts.count(Status.UNKNOWN)),
        untried_count=untried(heading, verdicts),
        level=heading.level if lowest is None else lowest.label,
        method=heading.method,
        bound=heading.bound,
        margins=heading.margins,
        mean_certified_radius=float(verdicts.radius.mean()),
        per_method=stages,
        curve=_curve(verdicts.radius, heading.eps),
        histogram=_histogram(verdicts.radius),
        per_class=tuple(_class_row(verdicts, int(label), heading.keys) for label in np.unique(verdicts.labels)),
        seconds=sum(part.elapsed for part in log.parts.values()),
        samples_per_second=sum(part.samples for part in log.parts.values()) / working if working > 0 else 0.0,
        device=", ".join(sorted({part.device for part in log.parts.values()})),
        requirements=(),
        records=None if records is None else str(records),
        provenance=provenance_of(log, shard),
        notes=(*heading.notes, *remarks_of(log, shard, remarks), *time_note(verdicts, records, UNTRIED)),
    )


def counts_of(heading: Heading, counts: np.ndarray[tuple[int], np.dtype[np.int64]]) -> dict[str, int]:
    """Return counts (E,) by eps."""
    return dict(zip(heading.keys, counts.tolist(), strict=True))


def _shares(heading: Heading, counts: np.ndarray[tuple[int], np.dtype[np.int64]], total: int) -> dict[str, float]:
    return {key: count / total for key, count in counts_of(heading, counts).items()}


def stages_of(heading: Heading, verdicts: Verdicts, parts: Mapping[str, Part]) -> tuple[StageResult, ...]:
    """Return what each stage decided, and its seconds in all processes."""
    return tuple(
        StageResult(
            method=name,
            decided=verdicts.decided_by(position),
            seconds=sum(part.seconds.get(name, 0.0) for part in parts.values()),
        )
        for position, name in enumerate(heading.stages)
    )


def remarks_of(log: Log, shard: str | None, further: Sequence[str]) -> list[str]:
    """Return what a reader should know of how the records came to be."""
    heading, verdicts = log.heading, log.verdicts
    found = _of_parts(list(log.parts.values()))
    found += [remark for remark in further if not any(remark in part.remarks for part in log.parts.values())]
    nothing = int((verdicts.predicted < 0).sum())
    if nothing:
        found.append(f"{nothing} samples have outputs that are not finite numbers: they count as unknown")
    if not heading.attacks and heading.outputs is None:
        found.append("no attack was run (it is part of the method 'cascade')")
    if shard is not None:
        found.append(f"shard {shard}: this report is about its samples only; `lipcert report merge` makes one of all")
    if len(log.parts) > 1:
        found.append(f"{len(log.parts)} processes did the work, one after the other or beside each other: times add up")
    return found


def untried(heading: Heading, verdicts: Verdicts) -> dict[str, int]:
    """Return how many samples the end of time left open, by eps; nothing where there are none."""
    return counts_of(heading, verdicts.take(verdicts.open).count(Status.UNKNOWN)) if verdicts.open.any() else {}


def time_note(verdicts: Verdicts, records: Path | None, meaning: str) -> list[str]:
    """Say what the end of time left open, and what that means for these samples."""
    late = int(verdicts.open.sum())
    if not late:
        return []
    further = "--resume goes on with them" if records is not None else "with --report DIR, --resume can go on with them"
    return [f"the time limit was over before everything was tried on {late} samples: {meaning}; {further}"]


def _of_parts(parts: Sequence[Part]) -> list[str]:
    """Return the remarks of all processes; those that do not hold for all say how many samples they are about."""
    said = dict.fromkeys(remark for part in parts for remark in part.remarks)
    working = [part for part in parts if part.samples]
    found = []
    for remark in said:
        mine = [part for part in working if remark in part.remarks]
        count = sum(part.samples for part in mine)
        found.append(remark if len(mine) == len(working) else f"in {count} samples: {remark}")
    return found


def _curve(radius: Float, eps: Sequence[float]) -> tuple[tuple[float, float], ...]:
    finite = radius[radius < RADIUS_CAP]
    reach = max(float(finite.max(initial=0.0)), max(eps))
    grid = [reach * step / (CURVE_POINTS - 1) for step in range(CURVE_POINTS)]
    return tuple((point, certified_share(radius, point)) for point in sorted({*grid, *eps}))


def _histogram(radius: Float) -> Histogram:
    shown = radius[(radius > 0) & (radius < RADIUS_CAP)]
    counts, edges = np.histogram(shown, bins=BINS, range=(0.0, float(shown.max(initial=0.0)) or 1.0))
    return Histogram(edges=tuple(map(float, edges)), counts=tuple(map(int, counts)))


def _class_row(verdicts: Verdicts, label: int, keys: Sequence[str]) -> ClassRow:
    mine = verdicts.labels == label
    share = (verdicts.status[mine] == Status.CERTIFIED).mean(axis=0)
    return ClassRow(
        label=label,
        samples=int(mine.sum()),
        clean_accuracy=float(verdicts.clean[mine].mean()),
        certified=dict(zip(keys, map(float, share), strict=True)),
    )


def provenance_of(log: Log, shard: str | None) -> Provenance:
    """Return the provenance with the first start, and with the part of the samples that was done."""
    provenance, done, total = log.heading.provenance, len(log.verdicts), log.heading.total
    if shard is None and done < total:
        shard = f"{done} of {total} samples"
    started = min((part.started for part in log.parts.values()), default=provenance.started)
    settings = {**provenance.settings, "shard": shard}
    return provenance.model_copy(update={"started": started, "settings": settings})
