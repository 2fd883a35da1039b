"""From a network whose outputs are numbers, and inputs, to a report on how far the outputs can move.

The run is that of the certifier: stages in order, batch by batch, records that a later run goes on with, shards.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import uuid4

import numpy as np

from lipcert.bounds.local.view import View
from lipcert.errors import UnsupportedError, UsageError
from lipcert.network.enclosure import Float
from lipcert.network.graph import Network
from lipcert.proof.claims import Norm
from lipcert.proof.local import Evaluator
from lipcert.proof.refusal import Refused
from lipcert.results import Part, RegressionReport
from lipcert.robustness.basis import make_basis
from lipcert.robustness.data.dataset import Dataset
from lipcert.robustness.records.heading import make_heading
from lipcert.robustness.records.journal import Journal
from lipcert.robustness.records.processes import ALONE, Processes
from lipcert.robustness.records.shards import unite
from lipcert.robustness.regression.hints import hints
from lipcert.robustness.regression.inputs import place, radii_of, spoken_of, unlabelled
from lipcert.robustness.regression.stages import Balls, GlobalChanges, LocalChanges
from lipcert.robustness.regression.summary import make_changes_report
from lipcert.robustness.settings import Settings, Units
from lipcert.robustness.stages.cascade import Cascade
from lipcert.robustness.stages.clock import Clock, Pace
from lipcert.robustness.stages.stage import Stage
from lipcert.robustness.sweep import LARGEST_BATCH, Progress, sweep
from lipcert.robustness.verdicts import Changes

RUN = frozenset({"batch_size", "shard", "folder", "resume", "time_limit", "budget_per_sample"})


def bound_changes(
    network: Network,
    inputs: Float | Dataset,
    *,
    eps: Sequence[float],
    norm: Norm = "linf",
    units: Units | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
    processes: Processes = ALONE,
    **run: Any,
) -> RegressionReport:
    """Bound how far each output moves around each sample. Level: verified.

    Args:
        network: as read, m outputs.
        inputs: (N, ...) in the units of the network's input.
        eps: radii, in units of `units.per_input`.
        norm: of the ball; linf gives boxes.
        units: of inputs and outputs.
        progress: called with (samples done, samples in all).
        say: called with each hint on what may be wrong, one line; the report has them too.
        processes: that share the run.
        run: of `Settings`: ``batch_size``, ``shard``, ``folder`` (of the records and ``intervals.npz``), ``resume``,
            ``time_limit`` and ``budget_per_sample``.

    Raises:
        UsageError: shapes, numbers or settings are wrong.
        InconclusiveError: nothing could be derived.
    """
    started, start = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    units = units or Units()
    chosen = _settings(eps, norm, units, run)
    clock = Clock(chosen.time_limit, chosen.budget_per_sample)
    given = inputs if isinstance(inputs, Dataset) else unlabelled(np.asarray(inputs, dtype=np.float64))
    samples, spoken = place(given, network, units, norm), spoken_of(network, units)
    dataset, balls = samples.dataset, Balls(norm, chosen.eps, samples.moved)
    noticed = hints(np.asarray(given.images[:]), radii_of(network, units), chosen.eps)
    if say is not None:
        for hint in noticed:
            say(hint)
    own = processes.share(chosen)
    index = own.rows(len(dataset))
    basis = make_basis(spoken, replace(chosen, folder=None, resume=False))  # its certificate is about `spoken`
    stages, refusal = _stages(spoken, partial(GlobalChanges, basis, balls), balls, clock)
    cascade = Cascade(stages, chosen.eps, clock)
    heading = make_heading(network, dataset, chosen, basis, cascade.names, started)
    heading = heading.model_copy(update={"notes": (*noticed, *network.notes, *refusal)})
    part = Part(part=uuid4().hex, started=started, device="cpu", shard=own.shard)
    with Journal(heading, part, start, chosen.folder, processes.home(chosen.folder)) as journal:
        todo = np.setdiff1d(index, journal.resume(dataset, index) if chosen.resume else journal.begin())
        tell = None if progress is None else lambda left: progress(len(index) - left, len(index))
        pace = Pace(chosen.batch_size or 1, chosen.batch_size or LARGEST_BATCH)
        left = Changes.nothing(todo, len(chosen.eps), network.nodes[-1].size)
        sweep(dataset, left, cascade, journal, pace, tell)
        log = journal.log()
    log, remarks = unite(processes, log, cascade.remarks(), (chosen.folder, chosen.shard))
    return make_changes_report(log, chosen.shard, chosen.folder if processes.first else None, remarks)


def _settings(eps: Sequence[float], norm: Norm, units: Units, run: dict[str, Any]) -> Settings:
    unknown = sorted(set(run) - RUN)
    if unknown:
        raise UsageError(f"there is no setting '{unknown[0]}' of regression: there are {', '.join(sorted(RUN))}")
    return Settings(eps=tuple(eps), norm=norm, method="global", quantity="features", units=units, **run)


def _stages(spoken: Network, first: Any, balls: Balls, clock: Clock) -> tuple[list[Stage], tuple[str, ...]]:
    """Return the stages, and why there is no local one where there is none. first: makes the global stage."""
    try:
        view, evaluator = View(spoken), Evaluator(spoken)
    except (Refused, UnsupportedError) as refusal:
        return [first(alone=True)], (f"no local bounds: {refusal}",)
    found = first(alone=False)
    return [found, LocalChanges(view, evaluator, found, balls, clock)], ()
