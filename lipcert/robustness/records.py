"""The per-sample file: JSON lines, appended batch by batch, resumable.

The first line says which run the records belong to: a digest over everything that a verdict depends on. Then one
line per sample. A run that was cut off leaves at most one torn line, which is cut away on resuming; samples with a
whole line are not done again.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from lipcert.errors import UsageError
from lipcert.proof.claims import Level
from lipcert.robustness.settings import Settings
from lipcert.robustness.verdicts import NOBODY, Status, Verdicts

SCHEMA = "lipcert.records/v1"
FILE = "records.jsonl"


def settings_digest(settings: Mapping[str, Any]) -> str:
    """Return a SHA-256 of settings that JSON can hold."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


class Records:
    """The file of one run, open for appending.

    Args of the constructor:
        settings: of the run; with its folder, its radii, and whether to go on with a file that is there (otherwise
            the file is replaced).
        digest: of everything that the verdicts depend on.
        stages: names, in the order of `Verdicts.stage`.

    Raises:
        UsageError: the file cannot be written, or belongs to another run.
    """

    def __init__(self, settings: Settings, digest: str, stages: Sequence[str]) -> None:
        assert settings.folder is not None
        self.path, self._eps, self._stages = Path(settings.folder) / FILE, settings.eps, tuple(stages)
        self.done = self._read(digest) if settings.resume else self._nothing()
        try:
            self._file = self.path.open("ab" if len(self.done) else "wb")
        except OSError as error:
            raise UsageError(f"cannot write the records '{self.path}': {error.strerror}") from None
        if not len(self.done):
            self._write([json.dumps({"schema": SCHEMA, "digest": digest, "eps": self._eps, "stages": self._stages})])

    def __enter__(self) -> Records:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, verdicts: Verdicts) -> None:
        """Add one line per sample and hand them to the operating system."""
        words = [status.label for status in Status]
        names = [*self._stages, ""]  # NOBODY is the last
        levels = [level.label for level in Level]
        lines = []
        rows = zip(
            verdicts.index.tolist(),
            verdicts.labels.tolist(),
            verdicts.predicted.tolist(),
            verdicts.radius.tolist(),
            verdicts.status.tolist(),
            verdicts.stage.tolist(),
            verdicts.level.tolist(),
            strict=True,
        )
        for index, label, predicted, radius, status, stage, level in rows:
            verdict = ",".join(f'"{words[code]}"' for code in status)
            by = ",".join(f'"{names[code]}"' for code in stage)
            proof = ",".join(f'"{levels[code]}"' for code in level)
            lines.append(
                f'{{"index":{index},"label":{label},"predicted":{predicted},"radius":{radius!r},'
                f'"status":[{verdict}],"stage":[{by}],"level":[{proof}]}}'
            )
        self._write(lines)

    def _write(self, lines: Sequence[str]) -> None:
        self._file.write("".join(f"{line}\n" for line in lines).encode())
        self._file.flush()

    def _nothing(self) -> Verdicts:
        empty = np.zeros(0, dtype=np.int64)
        return Verdicts.unknown(empty, empty, len(self._eps))

    def _read(self, digest: str) -> Verdicts:
        """Return what the file holds of this run, and cut a torn last line away."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return self._nothing()
        except OSError as error:
            raise UsageError(f"cannot read the records '{self.path}': {error.strerror}") from None
        whole = content[: content.rfind(b"\n") + 1]
        lines = whole.splitlines()
        if not lines:
            return self._nothing()
        try:
            if json.loads(lines[0])["digest"] != digest:
                raise UsageError(
                    f"the records '{self.path}' belong to a run with another model, data or settings: "
                    "choose another folder, or leave out --resume to start afresh"
                )
            done = self._parse([json.loads(line) for line in lines[1:]])
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise UsageError(
                f"'{self.path}' is not a file of records ({error}): remove it, or leave out --resume"
            ) from None
        if len(done) and len(whole) < len(content):
            with self.path.open("rb+") as file:
                file.truncate(len(whole))
        return done

    def _parse(self, rows: Sequence[Mapping[str, Any]]) -> Verdicts:
        if not rows:
            return self._nothing()
        codes = {status.label: int(status) for status in Status}
        stages = {name: position for position, name in enumerate(self._stages)} | {"": NOBODY}
        radius = np.array([float(row["radius"]) for row in rows])
        if not all(math.isfinite(r) and r >= 0 for r in radius):
            raise ValueError("a radius is not a number")
        status = np.array([[codes[word] for word in row["status"]] for row in rows], dtype=np.int8)
        stage = np.array([[stages[name] for name in row["stage"]] for row in rows], dtype=np.int8)
        level = np.array([[Level.parse(word) for word in row["level"]] for row in rows], dtype=np.int8)
        if not status.shape == stage.shape == level.shape == (len(rows), len(self._eps)):
            raise ValueError("a line speaks of other radii")
        index, label, predicted = (
            np.array([int(row[name]) for row in rows], dtype=np.int64) for name in ("index", "label", "predicted")
        )
        return Verdicts(index, label, predicted, radius, status, stage, level)
