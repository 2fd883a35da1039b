"""The way through the samples: batch by batch through all stages, and into the records after each.

Batches are small at first where stages follow the global one, which take nobody knows how long, and grow while they
take little time: a run that is cut off loses no more than one. Samples that lack of time leaves open are written down
too, with the stages that have not looked at them: a run that goes on begins there.

With a time limit there are several rounds, so that what is cheap is tried on all samples before much time is spent on a
few: the global bound, which is never left out; the first attack; each cheap local method; then each sample gets its
share of the time, by what stages took for others; the last round goes on with what is left open, as long as there is
time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from lipcert.network.graph import Network
from lipcert.robustness.data.dataset import Dataset
from lipcert.robustness.data.streams import Images, Stream
from lipcert.robustness.records.journal import Journal
from lipcert.robustness.settings import Settings
from lipcert.robustness.stages.cascade import Cascade
from lipcert.robustness.stages.clock import Pace
from lipcert.robustness.stages.plan import Plan
from lipcert.robustness.verdicts import Ints, Verdicts

Progress = Callable[[int, int], None]

BATCH_NUMBERS = 2**21  # numbers in the largest layer of a batch
LARGEST_BATCH = 2000


def make_pace(network: Network, settings: Settings, plan: Plan) -> Pace:
    """Return the sizes of batches: as given; else what fits, a single sample first where stages follow the global."""
    if settings.batch_size is not None:
        return Pace(settings.batch_size, settings.batch_size, math.inf)
    most = max(1, min(LARGEST_BATCH, BATCH_NUMBERS // max(node.size for node in network.nodes)))
    return Pace(1 if sum(step.included for step in plan.steps) > 1 else most, most)


def sweep(
    dataset: Dataset, left: Verdicts, cascade: Cascade, journal: Journal, pace: Pace, tell: Callable[[int], None] | None
) -> None:
    """Decide samples and write them down.

    Args:
        dataset: in the network's input shape.
        left: the samples to decide: none of them is done; nothing is pending of those that no stage looked at so far.
        cascade: decides them. journal: takes verdicts. pace: sizes of batches.
        tell: called with how many samples are left.
    """
    left = journal.continued(left)
    pending = left.waiting(len(cascade.stages))
    pending[~left.open] = True
    for number, turn in enumerate(cascade.rounds()):
        pace.restart()
        start = 0
        while start < len(left) and not (number and cascade.expired):
            if tell is not None:
                tell(int(pending.any(axis=1).sum()))
            rows, begin = np.arange(start, min(start + pace.size, len(left))), time.perf_counter()
            start += len(rows)
            if not (pending[rows] & turn.stages).any():
                continue
            share = cascade.seconds_for(len(left) - int(rows[0])) if turn.shared else math.inf
            part, images = left.take(rows), _rows(dataset.images, left.index[rows])
            late = cascade.decide(images, part, share, pending[rows] & turn.stages)
            pending[rows] = (late | (pending[rows] & ~turn.stages)) & cascade.wanted(part)
            pending[rows, 0] = False
            part.wait_for(pending[rows])
            left.put(rows, part)
            journal.append(part, images, dict(zip(cascade.names, cascade.seconds, strict=True)), cascade.remarks())
            pace.learn(len(part), time.perf_counter() - begin)
        open_ = np.flatnonzero(pending.any(axis=1))
        left, pending = left.take(open_), pending[open_]
    if tell is not None:
        tell(len(left))


def _rows(images: Images | Stream, rows: Ints) -> Images:
    """Return some images, without a copy where they stand one after the other."""
    first, last = int(rows[0]), int(rows[-1])
    return images[first : last + 1] if last - first + 1 == len(rows) else images[rows]
