"""The certifier: from a network and labelled data to a report.

A run is a list of stages (`stages`), each of which decides what earlier ones left open, batch by batch. Verdicts are
written after each batch, so that a run that is cut off loses at most the batch in flight.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

from lipcert.bounds.lower import lower_bound
from lipcert.errors import UsageError
from lipcert.network.graph import Network
from lipcert.results import Report
from lipcert.robustness.attack import Attacker
from lipcert.robustness.baseline import Baseline, hold, read_baseline
from lipcert.robustness.basis import Basis, make_basis, output_bound
from lipcert.robustness.data import Dataset, Images, as_dataset, fit
from lipcert.robustness.local_stage import local_stages
from lipcert.robustness.records import Records, settings_digest
from lipcert.robustness.requirements import Requirement, measured, parse_requirements
from lipcert.robustness.settings import Settings
from lipcert.robustness.stages import AttackStage, Cascade, GlobalStage, Stage
from lipcert.robustness.summary import Run, make_report
from lipcert.robustness.verdicts import Ints, Verdicts

Progress = Callable[[int, int], None]

BATCH_NUMBERS = 2**21  # numbers in the largest layer of a batch
LARGEST_BATCH, LARGEST_ATTACKED = 2000, 250  # attacks take long: records and progress come more often
PROBE = 64  # samples that show whether a pass is exact enough
LOWER_POINTS = 256  # samples that the search for a lower bound starts from


def certify(
    network: Network,
    data: Any,
    *,
    scale: float | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Report:
    """Certify the predictions of a network on labelled data.

    Args:
        network: as read.
        data: a `Dataset`, the path of an ``.npz`` file, or a pair (images, labels).
        scale: factor on the numbers of a file or pair; default 1/255 for uint8, 1 for everything else.
        limit: only the first samples.
        progress: called with (samples done, samples in all) after each batch.
        settings: fields of `Settings`, of which ``eps`` is needed.

    Returns:
        The report; its level is that of every certified sample. With a `folder`, the records are written there.

    Raises:
        UsageError: data or settings are wrong; requirements and their baseline are read before anything is computed.
        UnsupportedError: the network has an operator that cannot be executed.
        CertificateError: the certificate given is invalid.
        InconclusiveError: no bound at the level asked for.
    """
    started, start = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    chosen = _settings(settings)
    baseline = None if chosen.baseline is None else read_baseline(chosen.baseline)
    requirements = _requirements(chosen, baseline)
    dataset = _fitting(network, as_dataset(data, scale, limit))
    if baseline is not None:
        baseline.require_samples(requirements, dataset.digest, chosen.shard)
    index = _shard(chosen, len(dataset))
    device = pick_device(chosen.device)
    basis = _with_lower(make_basis(network, chosen), dataset, chosen)
    probe = dataset.images[:PROBE], dataset.labels[:PROBE]
    stages: list[Stage] = [GlobalStage.probed(basis.passes(len(index)), basis.margins, chosen.eps, *probe)]
    stages += local_stages(network, chosen, device)
    if chosen.attacks:
        attacker = Attacker(network, chosen.attack, chosen.norm, dataset.box, device)
        stages.append(AttackStage(attacker, chosen.eps))
    cascade = Cascade(stages, chosen.eps)
    digest = _digest(network, dataset, chosen)
    with nullcontext() if chosen.folder is None else Records(chosen, digest, cascade.names) as records:
        verdicts = _run(dataset, index, cascade, records, chosen.batch_size or _batch_size(network, chosen), progress)
    run = Run(started, time.perf_counter() - start, cascade, device, None if records is None else records.path)
    report = make_report(network, dataset, chosen, basis, verdicts, run)
    if any(requirement.name == "bound" for requirement in requirements):
        report = report.model_copy(update={"output_bound": output_bound(network, chosen)})
    return report.model_copy(update={"requirements": tuple(r.judge(measured(report, r)) for r in requirements)})


def pick_device(name: str) -> str:
    """Return the torch device that a setting names; ``auto`` is CUDA where there is one.

    Raises:
        UsageError: there is no such device here.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return name
    kind, _, number = name.partition(":")
    if kind != "cuda" or not (number == "" or number.isdecimal()):
        raise UsageError(f"there is no device '{name}': one of auto, cpu, cuda, cuda:N")
    if int(number or 0) >= torch.cuda.device_count():
        raise UsageError(f"there is no device '{name}' here: torch sees {torch.cuda.device_count()} CUDA devices")
    return name


def _settings(given: dict[str, Any]) -> Settings:
    known = {field.name for field in fields(Settings)}
    unknown = sorted(set(given) - known)
    if unknown:
        raise UsageError(f"there is no setting '{unknown[0]}': there are {', '.join(sorted(known))}")
    if "eps" not in given:
        raise UsageError("no radius is given: eps is needed")
    return Settings(**given)


def _requirements(chosen: Settings, baseline: Baseline | None) -> tuple[Requirement, ...]:
    requirements = hold(parse_requirements(chosen.requirements, chosen.eps), baseline, chosen.norm)
    for requirement in requirements:
        if requirement.name == "empirical_robust_accuracy" and not chosen.attacks:
            raise UsageError(
                f"the requirement '{requirement.text}' needs an attack, which only the method 'cascade' runs"
            )
    return requirements


def _fitting(network: Network, dataset: Dataset) -> Dataset:
    classes = network.nodes[-1].size
    if classes < 2:
        raise UsageError("the network has a single output: certification needs one output per class")
    return fit(dataset, network.input_shape, classes)


def _shard(chosen: Settings, total: int) -> Ints:
    part, parts = chosen.part()
    index = np.arange(part - 1, total, parts, dtype=np.int64)
    if not len(index):
        raise UsageError(f"shard {chosen.shard} of {total} samples is empty: use at most {total} shards")
    return index


def _with_lower(basis: Basis, dataset: Dataset, chosen: Settings) -> Basis:
    if not chosen.attacks or chosen.lower_seconds <= 0:
        return basis
    points = dataset.images[:LOWER_POINTS]
    found = lower_bound(basis.subject, chosen.norm, seconds=chosen.lower_seconds, points=points)
    return basis.with_lower(found.value)


def _digest(network: Network, dataset: Dataset, chosen: Settings) -> str:
    """Return a digest of everything that a verdict depends on."""
    if chosen.folder is None:
        return ""
    return settings_digest(
        {
            "graph": network.graph_digest,
            "weights": network.weights_digest,
            "data": dataset.digest,
            "shape": dataset.images.shape,
            "box": dataset.box,
            "settings": dict(chosen.summary()),
        }
    )


def _batch_size(network: Network, chosen: Settings) -> int:
    most = LARGEST_ATTACKED if chosen.attacks else LARGEST_BATCH
    return max(1, min(most, BATCH_NUMBERS // max(node.size for node in network.nodes)))


def _run(
    dataset: Dataset, index: Ints, cascade: Cascade, records: Records | None, size: int, progress: Progress | None
) -> Verdicts:
    """Decide all samples that the records do not hold yet."""
    parts = [] if records is None else [records.done]
    todo = np.setdiff1d(index, parts[0].index) if parts else index
    for rows in _batches(todo, size):
        if progress is not None:
            progress(len(index) - len(todo), len(index))
        verdicts = Verdicts.unknown(rows, dataset.labels[rows], len(cascade.eps))
        cascade.decide(_rows(dataset.images, rows), verdicts)
        if records is not None:
            records.append(verdicts)
        parts.append(verdicts)
        todo = todo[len(rows) :]
    if progress is not None:
        progress(len(index), len(index))
    return Verdicts.join(parts)


def _rows(images: Images, rows: Ints) -> Images:
    """Return some images, without a copy where they stand one after the other."""
    first, last = int(rows[0]), int(rows[-1])
    return images[first : last + 1] if last - first + 1 == len(rows) else images[rows]


def _batches(index: Ints, size: int) -> Iterator[Ints]:
    return (index[start : start + size] for start in range(0, len(index), size))
