"""Records of several processes as one.

Merging takes the union: it does not matter in which order, how often, or whether samples stand in several files. Where
a sample was done twice, the verdict that says more counts. Both are proved, so they cannot contradict each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lipcert.errors import UsageError
from lipcert.files import write_whole
from lipcert.results import Heading, Part
from lipcert.robustness.records.lines import FILE, Log, batch_lines, heading_line, read_records
from lipcert.robustness.verdicts import NOBODY, Codes, Ints, Status, Verdicts

Mask = npt.NDArray[np.bool_]

SHARDS = "shard-*-of-*"  # folders of shards in that of a run
RANGES = 10  # stretches of missing samples that are named


def merge(logs: Sequence[Log]) -> Log:
    """Return the union of records, samples in the order of the data.

    Args:
        logs: at least one.

    Raises:
        UsageError: they are about different networks, settings or data, or contradict each other.
    """
    headings = list({id(log.heading): log.heading for log in logs}.values())
    for other in headings[1:]:
        _require_same(headings[0], other)
    stages = _stages(headings)
    heading = max(headings, key=_weakest).model_copy(update={"stages": stages})
    moved = [renamed(log, stages) for log in logs]
    whole = Verdicts.stack(moved)
    keys = np.concatenate([log.keys for log in logs])
    order = _best_last(whole)
    whole, keys = whole.take(order), keys[order]
    same = whole.index[1:] == whole.index[:-1]
    _require_agreement(whole, same & (keys[1:] == keys[:-1]), same)
    last = np.append(~same, True)[: len(keys)]
    return Log(heading, whole.take(last), keys[last], _parts(logs))


def missing(log: Log) -> Ints:
    """Return the positions of the samples that records say nothing about."""
    return np.setdiff1d(np.arange(log.heading.total, dtype=np.int64), log.verdicts.index)


def ranges(positions: Ints) -> str:
    """Return rising positions in words: ``3, 7 to 9``."""
    breaks = np.flatnonzero(np.diff(positions) != 1) + 1
    runs = [(int(run[0]), int(run[-1])) for run in np.split(positions, breaks) if len(run)]
    words = [f"{first}" if first == last else f"{first} to {last}" for first, last in runs]
    return ", ".join(words if len(words) <= RANGES else [*words[:RANGES], f"and {len(words) - RANGES} more stretches"])


def read_folder(folder: Path) -> list[Log]:
    """Return the records of a folder and of the shards in it (``shard-I-of-N``).

    Raises:
        UsageError: records are damaged.
    """
    files = [folder / FILE, *sorted(folder.glob(f"{SHARDS}/{FILE}"))]
    return [found.log for found in map(read_records, files) if found is not None]


def write_records(path: Path, log: Log) -> None:
    """Write records; they appear whole or not at all. Runs can go on with them.

    Raises:
        UsageError: the file cannot be written.
    """
    with write_whole(path) as temporary:
        temporary.write_bytes(heading_line(log.heading) + batch_lines(log))


def _require_same(one: Heading, other: Heading) -> None:
    if one.digest == other.digest and one.samples_sha256 == other.samples_sha256 and one.total == other.total:
        return
    mine, theirs = one.provenance.settings, other.provenance.settings
    differ = [name for name in mine if name != "shard" and mine[name] != theirs.get(name)]
    if one.model.weights_digest != other.model.weights_digest or one.model.graph_digest != other.model.graph_digest:
        what = f"other networks: '{one.model.path}' and '{other.model.path}'"
    elif one.digest != other.digest and differ:
        name = differ[0]
        what = f"other settings: {name} is {mine[name]} in one and {theirs.get(name)} in another"
    elif one.digest != other.digest:
        what = "runs of another kind: another version of lipcert, another certificate, or inputs of another range"
    else:
        what = f"other samples: '{one.provenance.data}' ({one.total}) and '{other.provenance.data}' ({other.total})"
    raise UsageError(f"these records do not belong together, they are about {what}")


def _weakest(heading: Heading) -> tuple[float, str]:
    """Sort headings so that the last one has the largest bound: verdicts of all of them hold with it."""
    bound = heading.bound.bound
    return (np.inf if bound is None else bound), heading.model_dump_json()


def _stages(headings: Sequence[Heading]) -> tuple[str, ...]:
    """Return the stages of all, in the order of the longest list."""
    longest = max((heading.stages for heading in headings), key=lambda names: (len(names), names))
    return (*longest, *sorted({name for heading in headings for name in heading.stages} - set(longest)))


def renamed(log: Log, stages: Sequence[str]) -> Verdicts:
    """Return verdicts with the positions of their stages in another list, which holds all of them."""
    if log.heading.stages == tuple(stages):
        return log.verdicts
    places: Codes = np.array([*(stages.index(name) for name in log.heading.stages), NOBODY], dtype=np.int8)
    moved = replace(log.verdicts, stage=places[log.verdicts.stage], pending=log.verdicts.pending.copy())
    waiting = np.zeros((len(moved), len(stages)), dtype=np.bool_)
    waiting[:, places[:-1]] = log.verdicts.waiting(len(log.heading.stages))
    moved.wait_for(waiting)
    return moved


def _best_last(verdicts: Verdicts) -> Ints:
    """Return the order by index, and within that from verdicts that say less to those that say more.

    All columns take part, so that equal places mean equal verdicts and no order of the files matters.
    """
    decided: Ints = (verdicts.status != Status.UNKNOWN).sum(axis=1)
    columns = [*verdicts.stage.T, *verdicts.status.T, verdicts.predicted, *verdicts.level.T]
    tried = -(np.bitwise_count(verdicts.pending).astype(np.int64))
    return np.lexsort((*columns, verdicts.radius, verdicts.pending, tried, decided, verdicts.index)).astype(np.int64)


def _require_agreement(verdicts: Verdicts, agree: Mask, same: Mask) -> None:
    """Refuse two verdicts on one place of the data that cannot both be true."""
    one, other = verdicts.status[:-1], verdicts.status[1:]
    against = ((one != other) & (one != Status.UNKNOWN) & (other != Status.UNKNOWN)).any(axis=1)
    wrong = np.flatnonzero(same & (~agree | against))
    if len(wrong):
        index = int(verdicts.index[wrong[0]])
        raise UsageError(f"the records contradict each other about sample {index}: one of the files is damaged")


def _parts(logs: Iterable[Log]) -> dict[str, Part]:
    """Return what each process did, as far as any file knows."""
    found: dict[str, Part] = {}
    for log in logs:
        for name, part in log.parts.items():
            if name not in found or _rank(part) > _rank(found[name]):
                found[name] = part
    return dict(sorted(found.items()))


def _rank(part: Part) -> tuple[int, float]:
    return part.samples, part.elapsed
