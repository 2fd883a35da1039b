"""From verdicts to the report."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from lipcert.bounds.documents import model_info
from lipcert.network.enclosure import Float
from lipcert.network.graph import Network
from lipcert.results import ClassRow, Histogram, Provenance, Report, StageResult
from lipcert.robustness.basis import Basis
from lipcert.robustness.data import Dataset
from lipcert.robustness.margins import RADIUS_CAP
from lipcert.robustness.settings import Settings
from lipcert.robustness.stages import Cascade, certified_share
from lipcert.robustness.verdicts import Status, Verdicts

BINS = 40
CURVE_POINTS = 101
ARITHMETIC = (
    "bounds and verdicts in float64 on the CPU, rounded outward; forward passes in float32 with rigorous error "
    "bounds, in float64 where those leave a verdict open or the run is small; TF32, reduced precision and "
    "transform convolutions off"
)


@dataclass(frozen=True)
class Run:
    """What happened around the verdicts.

    Attributes:
        started: UTC time, ISO 8601.
        seconds: the whole run.
        cascade: the stages with their times.
        device: where attacks ran.
        records: path of the per-sample file, or None.
    """

    started: str
    seconds: float
    cascade: Cascade
    device: str
    records: Path | None


def make_report(
    network: Network, dataset: Dataset, settings: Settings, basis: Basis, verdicts: Verdicts, run: Run
) -> Report:
    """Return the report, without verdicts on requirements."""
    total, keys, cascade = len(verdicts), settings.keys, run.cascade
    working = sum(cascade.seconds)
    certified, attacked = verdicts.count(Status.CERTIFIED), verdicts.count(Status.ATTACKED)
    clean = int(verdicts.clean.sum())
    left = {key: (clean - int(n)) / total for key, n in zip(keys, attacked, strict=True)}
    lowest = verdicts.lowest_level()
    return Report(
        model=model_info(network),
        samples=total,
        norm=settings.norm,
        eps=settings.eps,
        clean_accuracy=clean / total,
        clean_count=clean,
        certified_accuracy={key: int(n) / total for key, n in zip(keys, certified, strict=True)},
        certified_count=dict(zip(keys, map(int, certified), strict=True)),
        empirical_robust_accuracy=left if settings.attacks else {},
        attacked_count=dict(zip(keys, map(int, attacked), strict=True)) if settings.attacks else {},
        unknown_count=dict(zip(keys, map(int, verdicts.count(Status.UNKNOWN)), strict=True)),
        level=(basis.level if lowest is None else lowest).label,
        method=settings.method,
        bound=basis.bound,
        margins=basis.pairs,
        mean_certified_radius=float(verdicts.radius.mean()),
        per_method=tuple(
            StageResult(method=name, decided=verdicts.decided_by(position), seconds=seconds)
            for position, (name, seconds) in enumerate(zip(cascade.names, cascade.seconds, strict=True))
        ),
        curve=_curve(verdicts.radius, settings.eps),
        histogram=_histogram(verdicts.radius),
        per_class=tuple(_class_row(verdicts, int(label), keys) for label in np.unique(verdicts.labels)),
        seconds=run.seconds,
        samples_per_second=cascade.samples / working if working > 0 else 0.0,
        device=run.device,
        requirements=(),
        records=None if run.records is None else str(run.records),
        provenance=_provenance(dataset, settings, run),
        notes=(*dataset.notes, *network.notes, *basis.notes, *_remarks(settings, verdicts, cascade)),
    )


def _remarks(settings: Settings, verdicts: Verdicts, cascade: Cascade) -> list[str]:
    remarks = [remark for stage in cascade.stages for remark in stage.remarks()]
    nothing = int((verdicts.predicted < 0).sum())
    if nothing:
        remarks.append(f"{nothing} samples have outputs that are not finite numbers: they count as unknown")
    if not settings.attacks:
        remarks.append("no attack was run (it is part of the method 'cascade')")
    if settings.shard is not None:
        remarks.append(f"shard {settings.shard}: this report is about its samples only")
    return remarks


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


def _provenance(dataset: Dataset, settings: Settings, run: Run) -> Provenance:
    import torch

    return Provenance(
        lipcert=version("lipcert"),
        python=platform.python_version(),
        numpy=np.__version__,
        torch=torch.__version__,
        platform=platform.platform(),
        command=_command(),
        arithmetic=ARITHMETIC,
        started=run.started,
        data=dataset.name,
        data_sha256=dataset.sha256,
        samples_sha256=dataset.digest,
        settings=dict(settings.summary()),
    )


def _command() -> str | None:
    """Return the command line, where lipcert is the program that runs."""
    program = Path(sys.argv[0])
    is_ours = program.stem == "lipcert" or (program.name == "__main__.py" and program.parent.name == "lipcert")
    return shlex.join(["lipcert", *sys.argv[1:]]) if is_ours else None
