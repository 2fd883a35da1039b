"""The certifier: from a network and labelled data to a report.

A run is a list of stages (`plan`), each of which decides what earlier ones left open, batch by batch. Verdicts are
written after each batch, so that a run that is cut off loses at most the batch in flight.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import numpy as np
import torch

from lipcert.bounds.lower import lower_bound
from lipcert.errors import InconclusiveError, UsageError
from lipcert.network.graph import Network
from lipcert.proof.claims import Level
from lipcert.results import Part, PlanResult, Report
from lipcert.robustness.adversarial import save_adversarial
from lipcert.robustness.attack import Attacker
from lipcert.robustness.baseline import Baseline, hold, read_baseline
from lipcert.robustness.basis import Basis, make_basis, output_bound
from lipcert.robustness.data.dataset import Dataset, as_dataset, fit
from lipcert.robustness.exhibits import make_exhibits
from lipcert.robustness.explanation import plan_document
from lipcert.robustness.hints import hinted
from lipcert.robustness.proofs import Proofs
from lipcert.robustness.records.heading import make_heading
from lipcert.robustness.records.journal import Journal
from lipcert.robustness.records.lines import FILE
from lipcert.robustness.records.processes import ALONE, Processes
from lipcert.robustness.records.shards import unite
from lipcert.robustness.requirements import Requirement, measured, parse_requirements
from lipcert.robustness.settings import Settings
from lipcert.robustness.stages.cascade import Cascade
from lipcert.robustness.stages.clock import Clock
from lipcert.robustness.stages.plan import make_plan
from lipcert.robustness.stages.stage import GlobalStage
from lipcert.robustness.summary import make_report
from lipcert.robustness.sweep import Progress, make_pace, sweep
from lipcert.robustness.tasks import LOGITS, ends_in_sigmoid, two_logits
from lipcert.robustness.verdicts import Verdicts

Say = Callable[[str], None]

PROBE = 64  # samples that show whether a pass is exact enough
LOWER_POINTS = 256  # samples that the search for a lower bound starts from
LOWER_SHARE = 0.05  # of a time limit, that this search may take


def certify(
    network: Network,
    data: Any,
    *,
    scale: float | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
    say: Say | None = None,
    processes: Processes = ALONE,
    **settings: Any,
) -> Report:
    """Certify the predictions of a network on labelled data.

    Args:
        network: as read.
        data: the path of an ``.npz`` file or of a folder of images, a pair (images, labels), a data set that gives one
            such pair at a time, or a `Dataset`.
        scale: factor on the numbers of a file or pair; default 1/255 for uint8, 1 for everything else.
        limit: only the first samples.
        progress: called with (samples done, samples in all) after each batch.
        say: called with each hint on what may be wrong, one line, before the work begins; the report has them too.
        processes: that share the run, see `processes.joined`; each of them gets the report on all samples.
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
    chosen, given = _settings(settings), network
    clock = Clock(chosen.time_limit, chosen.budget_per_sample)
    baseline = None if chosen.baseline is None else read_baseline(chosen.baseline)
    requirements = _requirements(chosen, baseline)
    network = _as_classifier(given, chosen)
    dataset = hinted(network, _fitting(network, as_dataset(data, scale, limit), chosen), chosen.eps, chosen.norm, say)
    if baseline is not None:
        baseline.require_samples(requirements, dataset.digest, chosen.shard)
    own = processes.share(chosen)
    index = own.rows(len(dataset))
    device = pick_device(own.device)
    plan = make_plan(network, chosen, device)
    basis = _with_lower(_bound(given, network, chosen), dataset, chosen)
    probe = dataset.images[:PROBE], dataset.labels[:PROBE]
    first = GlobalStage.probed(basis.passes(len(dataset)), basis.margins, chosen.eps, *probe)
    first.work = plan.steps[0].work
    attacker = _attacker(network, chosen, dataset, device)
    cascade = Cascade([first, *plan.stages(chosen, attacker, clock, basis.execution)], chosen.eps, clock)
    heading = make_heading(network, dataset, chosen, basis, cascade.names, started)
    part = Part(part=uuid4().hex, started=started, device=device, shard=own.shard)
    with Journal(heading, part, start, chosen.folder, processes.home(chosen.folder)) as journal:
        todo = np.setdiff1d(index, journal.resume(dataset, index) if chosen.resume else journal.begin())
        pace = make_pace(network, chosen, plan)
        tell = None if progress is None else lambda left: progress(len(index) - left, len(index))
        sweep(dataset, Verdicts.unknown(todo, dataset.labels[todo], len(chosen.eps)), cascade, journal, pace, tell)
        log = journal.log()
    log, remarks = unite(processes, log, (*plan.remarks, *cascade.remarks()), (chosen.folder, chosen.shard))
    report = make_report(log, chosen.shard, None if chosen.folder is None else chosen.folder / FILE, remarks)
    if processes.first and attacker and chosen.save_adversarial:
        saved = save_adversarial(attacker, dataset, log.verdicts, chosen)
        report = report.model_copy(update={"notes": (*report.notes, *saved)})
    if processes.first and chosen.proofs:
        files, note = Proofs(network, dataset, chosen, device).save(log.verdicts, log.heading.stages)
        report = report.model_copy(update={"proofs": files, "notes": (*report.notes, note)})
    if processes.first:
        exhibits = make_exhibits(network, dataset, chosen, log.verdicts, device)
        report = report.model_copy(update={"exhibits": exhibits})
    if any(requirement.name == "bound" for requirement in requirements):
        report = report.model_copy(update={"output_bound": output_bound(network, chosen)})
    return report.model_copy(update={"requirements": tuple(r.judge(measured(report, r)) for r in requirements)})


def explain(
    network: Network, data: Any, *, scale: float | None = None, limit: int | None = None, **settings: Any
) -> PlanResult:
    """Return what `certify` would do with the same arguments, without running anything.

    Raises:
        UsageError, UnsupportedError: as of `certify`.
    """
    chosen = _settings(settings)
    network = _as_classifier(network, chosen)
    dataset = _fitting(network, as_dataset(data, scale, limit), chosen)
    device = pick_device(chosen.device)
    plan = make_plan(network, chosen, device)
    samples = len(chosen.rows(len(dataset)))
    return plan_document(network, chosen, plan, samples, device, make_pace(network, chosen, plan).size)


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


def _as_classifier(network: Network, chosen: Settings) -> Network:
    """Return the network with one output per class."""
    classes = network.nodes[-1].size
    if classes == 1 and chosen.certificate is not None:
        raise UsageError("a network with one output takes no certificate: its bound is computed in no time")
    if classes == 1 and chosen.proofs:
        raise UsageError("a network with one output has no proofs of single samples: a certificate speaks of classes")
    if classes == 1 and chosen.level == Level.VERIFIED_EXEC.label and ends_in_sigmoid(network):
        raise InconclusiveError(
            "level verified-exec is out of reach: a rounded sigmoid may be 1/2 where its input is not 0; export the "
            "model without it, or use --level verified"
        )
    if chosen.top_k >= max(classes, 2):
        raise UsageError(f"top_k is {chosen.top_k}: the network has {max(classes, 2)} classes")
    return two_logits(network) if classes == 1 else network


def _bound(given: Network, network: Network, chosen: Settings) -> Basis:
    """Return the basis; certificates are saved where they are about the network as given."""
    if network is given:
        return make_basis(network, chosen)
    return make_basis(network, replace(chosen, folder=None, resume=False, save_adversarial=False))


def _fitting(network: Network, dataset: Dataset, chosen: Settings) -> Dataset:
    if network.nodes[-1].size == 2 and network.nodes[-1].name == LOGITS and dataset.labels.max() > 1:
        raise UsageError("the network has a single output: labels are 0 and 1; for numbers, use --task regression")
    fitted = fit(dataset, network.input_shape, network.nodes[-1].size)
    if chosen.box is None:
        return fitted
    (low, high), (least, most) = fitted.box, chosen.box
    if low < least or high > most:
        raise UsageError(f"the inputs lie in [{low:g}, {high:g}], which is not inside the box [{least:g}, {most:g}]")
    return replace(fitted, box=chosen.box)


def _with_lower(basis: Basis, dataset: Dataset, chosen: Settings) -> Basis:
    if not chosen.attacks or chosen.lower_seconds <= 0:
        return basis
    points = dataset.images[:LOWER_POINTS]
    share = math.inf if chosen.time_limit is None else LOWER_SHARE * chosen.time_limit
    seconds = min(chosen.lower_seconds, share)
    found = lower_bound(basis.subject, chosen.norm, seconds=seconds, points=points)
    return basis.with_lower(found.value)


def _attacker(network: Network, chosen: Settings, dataset: Dataset, device: str) -> Attacker | None:
    if not chosen.attacks:
        return None
    return Attacker(network, chosen.attack, chosen.norm, dataset.box, device, chosen.top_k, chosen.box is None)
