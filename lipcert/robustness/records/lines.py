"""The per-sample file: JSON lines, appended batch by batch.

The first line is the `Heading`: what the records are about. Each batch adds one line per sample, which takes the place
of an earlier one about the same sample that lack of time left open, and then one line
(`Part`) that says what the process that writes did so far, with a checksum of the batch's lines. A batch counts when
that line is there: a run that was cut off leaves at most one batch that does not, which is cut away before the file is
written to again.

Each batch is handed to the operating system at once, so the end of the process (``kill -9``) loses nothing more. Only
at the end of a run is the file forced to the disk: a loss of power before that may take the last batches, or leave a
damaged file, which is noticed.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from lipcert.errors import UsageError, one_line
from lipcert.proof.claims import Level
from lipcert.results import Heading, Part
from lipcert.robustness.data.streams import Images
from lipcert.robustness.verdicts import NOBODY, Changes, Ints, Status, Verdicts

FILE = "records.jsonl"
INTERVALS = ("lower", "upper", "change")  # further entries of a sample's line, where outputs are numbers
KEY_BYTES = 8
SEPARATOR = ", "  # of the stages that are pending
Keys = npt.NDArray[np.str_]


@dataclass(frozen=True)
class Log:
    """What records hold.

    Attributes:
        heading: what they are about.
        verdicts: on N samples, in no particular order. keys: (N,) `sample_keys` of them.
        parts: what each process did, by its name.
    """

    heading: Heading
    verdicts: Verdicts
    keys: Keys
    parts: Mapping[str, Part] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """A file that was read: its records, and the length of what counts in bytes."""

    log: Log
    length: int


def sample_keys(heading: Heading, images: Images, labels: Ints) -> Keys:
    """Return (N,) digests of (sample, network, settings): verdicts with the same one are interchangeable."""
    start = hashlib.blake2b(bytes.fromhex(heading.digest), digest_size=KEY_BYTES)
    found = []
    numbers = np.ascontiguousarray(images, dtype=images.dtype.newbyteorder("<"))
    for image, label in zip(numbers, labels.tolist(), strict=True):
        content = start.copy()
        content.update(image.data)
        content.update(label.to_bytes(8, "little", signed=True))
        found.append(content.hexdigest())
    return np.array(found, dtype=f"U{2 * KEY_BYTES}")


def no_verdicts(heading: Heading) -> Log:
    """Return the records of a run that did nothing yet."""
    empty = np.zeros(0, dtype=np.int64)
    keys, count = np.zeros(0, dtype=f"U{2 * KEY_BYTES}"), len(heading.eps)
    if heading.outputs is None:
        return Log(heading, Verdicts.unknown(empty, empty, count), keys)
    return Log(heading, Changes.nothing(empty, count, heading.outputs), keys)


def heading_line(heading: Heading) -> bytes:
    """Return the first line of a file."""
    return heading.model_dump_json().encode() + b"\n"


def batch_lines(log: Log) -> bytes:
    """Return the lines of a batch: its samples, and then what each process did, the first with their checksum."""
    samples = "".join(verdict_lines(log)).encode()
    check, lines = zlib.crc32(samples), [samples]
    for name in sorted(log.parts):
        lines.append(log.parts[name].model_copy(update={"check": check}).model_dump_json().encode() + b"\n")
        check = 0
    return b"".join(lines)


def verdict_lines(log: Log) -> Iterator[str]:
    """Return one line per sample."""
    words = [status.label for status in Status]
    names = [*log.heading.stages, ""]  # NOBODY is the last
    waiting = log.verdicts.waiting(len(log.heading.stages)).tolist()
    levels = [level.label for level in Level]
    verdicts = log.verdicts
    columns = (verdicts.index, verdicts.labels, verdicts.predicted, verdicts.radius)
    codes = (verdicts.status, verdicts.stage, verdicts.level)
    intervals = (getattr(verdicts, name).tolist() for name in INTERVALS) if isinstance(verdicts, Changes) else ()
    further = map(_intervals, zip(*intervals, strict=True)) if isinstance(verdicts, Changes) else repeat("")
    rows = zip(log.keys.tolist(), waiting, *(column.tolist() for column in (*columns, *codes)), strict=True)
    for (key, open_, index, label, predicted, radius, status, stage, level), text in zip(rows, further, strict=False):
        verdict = ",".join(f'"{words[code]}"' for code in status)
        by = ",".join(f'"{names[code]}"' for code in stage)
        proof = ",".join(f'"{levels[code]}"' for code in level)
        left = SEPARATOR.join(name for name, pending in zip(names, open_, strict=False) if pending)
        yield (
            f'{{"index":{index},"label":{label},"predicted":{predicted},"radius":{radius!r},'
            f'"status":[{verdict}],"stage":[{by}],"level":[{proof}],"pending":"{left}","key":"{key}"{text}}}\n'
        )


def _intervals(numbers: tuple[Any, ...]) -> str:
    """Return the intervals of a sample as further entries of its line."""
    return "".join(f',"{name}":{json.dumps(values)}' for name, values in zip(INTERVALS, numbers, strict=True))


def read_records(path: Path) -> Found | None:
    """Read a file; None where it is not there, or was cut off before its first line was whole.

    Raises:
        UsageError: the file cannot be read, or a line is damaged: the line is named.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"cannot read the records '{path}': {error.strerror}") from None
    lines = content[: content.rfind(b"\n") + 1].splitlines(keepends=True)  # what follows is torn
    if not lines:
        return None
    number = 1
    try:
        heading = Heading.model_validate_json(lines[0])
        reader, position = _Reader(heading), len(lines[0])
        length = position
        for line in lines[1:]:
            number, position = number + 1, position + len(line)
            if reader.take(line):
                length = position
    except (ValueError, KeyError, TypeError) as error:  # pydantic's errors are ValueErrors
        raise UsageError(_damage(path, number, error)) from None
    return Found(reader.log(), length)


class _Reader:
    """Takes the lines behind the heading; `take` raises what `read_records` turns into its error."""

    def __init__(self, heading: Heading) -> None:
        self._heading = heading
        self._stages = {name: position for position, name in enumerate(heading.stages)} | {"": NOBODY}
        self._words = {status.label: int(status) for status in Status}
        self._levels = {level.label: int(level) for level in Level}
        self._rows: list[dict[str, Any]] = []
        self._counted = self._check = 0
        self._parts: dict[str, Part] = {}

    def take(self, line: bytes) -> bool:
        """Take a line; return whether everything up to it counts."""
        row = json.loads(line)
        if "part" not in row:
            self._rows.append(self._sample(row))
            self._check = zlib.crc32(line, self._check)
            return False
        part = Part.model_validate(row)
        if part.check != self._check:
            raise ValueError("the lines of samples above it were changed: their checksum is another one")
        self._parts[part.part], self._counted, self._check = part, len(self._rows), 0
        return True

    def log(self) -> Log:
        """Return what counts."""
        stages = tuple(name for name in self._stages if name)
        heading = self._heading.model_copy(update={"stages": stages})
        rows = self._rows[: self._counted]
        if not rows:
            return replace(no_verdicts(heading), parts=self._parts)
        column = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        codes = (column[name].astype(np.int8) for name in ("status", "stage", "level"))
        whole = (column[name].astype(np.int64) for name in ("index", "label", "predicted"))
        known = (*whole, column["radius"].astype(np.float64), column["pending"].astype(np.int64), *codes)
        if heading.outputs is None:
            return Log(heading, Verdicts(*known), column["key"], self._parts)  # type: ignore[arg-type]
        ends = (column[name].astype(np.float64) for name in INTERVALS)
        return Log(heading, Changes(*known, *ends), column["key"], self._parts)  # type: ignore[arg-type]

    def _sample(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return a sample's line with codes in place of words."""
        if not (math.isfinite(row["radius"]) and row["radius"] >= 0):
            raise ValueError("the radius is not a number")
        if any(type(row[name]) is not int for name in ("index", "label", "predicted")) or not 0 <= row["index"] < 2**62:
            raise ValueError("index, label and predicted are whole numbers")
        if len(bytes.fromhex(row["key"])) != KEY_BYTES:
            raise ValueError("the key has another length")
        pending = row.get("pending", "").split(SEPARATOR)
        for name in (*row["stage"], *pending):
            self._stages.setdefault(name, len(self._stages) - 1)  # a stage that only another device has
        row["pending"] = sum(1 << self._stages[name] for name in set(pending) if name)
        for name, known in (("status", self._words), ("stage", self._stages), ("level", self._levels)):
            if len(row[name]) != len(self._heading.eps):
                raise ValueError("it speaks of other radii")
            row[name] = [known[word] for word in row[name]]
        if self._heading.outputs is not None:
            shape = (len(self._heading.eps), self._heading.outputs)
            for name in INTERVALS:
                row[name] = np.array(row[name], dtype=np.float64)
                if row[name].shape != shape or not np.isfinite(row[name]).all():
                    raise ValueError(f"'{name}' is no {shape[0]} x {shape[1]} numbers")
        return row


def _damage(path: Path, number: int, error: Exception) -> str:
    text = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
    reason = one_line(text) or type(error).__name__
    if number == 1:
        return (
            f"'{path}' is not a file of this version's records (line 1: {reason}): remove it, or choose another folder"
        )
    return f"'{path}' is damaged in line {number} ({reason}): cut it before that batch, or remove it to start afresh"
