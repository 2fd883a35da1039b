"""What is known of each sample at each eps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from lipcert.network.enclosure import Float
from lipcert.proof.claims import Level

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int8]
NOBODY = -1  # no stage has decided
FIELDS = ("index", "labels", "predicted", "radius", "pending", "status", "stage", "level")


class Status(IntEnum):
    """Verdict on a sample at one eps."""

    UNKNOWN = 0
    CERTIFIED = 1
    ATTACKED = 2
    MISCLASSIFIED = 3

    @property
    def label(self) -> str:
        """Spelling in the records."""
        return self.name.lower()


@dataclass
class Verdicts:
    """Verdicts on N samples at E values of eps; stages fill it in.

    Attributes:
        index: (N,) positions in the data. labels: (N,).
        predicted: (N,) class, or -1 where the outputs are not numbers.
        radius: (N,) certified radii, 0 where nothing is certified.
        pending: (N,) stages that might still decide the sample and have not looked at it, for lack of time: bit k for
            the k-th; 0 where the sample is done.
        status: (N, E) values of `Status`; along ascending eps certified ones first, attacked ones last.
        stage: (N, E) position of the stage that decided, or `NOBODY`.
        level: (N, E) values of `Level`: of the best proof that the sample is stable, `ESTIMATE` where there is none.
            A proof below the level of the run certifies nothing: the status stays unknown.
    """

    index: Ints
    labels: Ints
    predicted: Ints
    radius: Float
    pending: Ints
    status: Codes
    stage: Codes
    level: Codes

    @staticmethod
    def unknown(index: Ints, labels: Ints, count: int) -> Verdicts:
        """Return verdicts at `count` values of eps about samples of which nothing is known."""
        size = len(index)
        return Verdicts(
            index=index,
            labels=labels,
            predicted=np.full(size, -1, dtype=np.int64),
            radius=np.zeros(size),
            pending=np.zeros(size, dtype=np.int64),
            status=np.full((size, count), Status.UNKNOWN, dtype=np.int8),
            stage=np.full((size, count), NOBODY, dtype=np.int8),
            level=np.full((size, count), Level.ESTIMATE, dtype=np.int8),
        )

    @classmethod
    def stack(cls, parts: Sequence[Self]) -> Self:
        """Return several verdicts, all of one kind, behind each other."""
        columns = zip(*(part.columns() for part in parts), strict=True)
        return type(parts[0])(*(np.concatenate(column) for column in columns))

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Return several verdicts as one, in the order of the data."""
        whole = cls.stack(parts)
        return whole.take(np.argsort(whole.index, kind="stable"))

    def columns(self) -> tuple[npt.NDArray[Any], ...]:
        """Return all that is known, one array per field."""
        return tuple(getattr(self, field.name) for field in fields(self))

    def __len__(self) -> int:
        return len(self.index)

    def take(self, rows: Ints | npt.NDArray[np.bool_]) -> Self:
        """Return a copy of some of them, given by position or mask."""
        return type(self)(*(column[rows] for column in self.columns()))

    def put(self, rows: Ints, part: Self) -> None:
        """Write some of them, taken at positions, back."""
        for own, new in zip(self.columns(), part.columns(), strict=True):
            own[rows] = new

    @property
    def open(self) -> npt.NDArray[np.bool_]:
        """(N,) whether a stage might still decide the sample."""
        return np.asarray(self.pending != 0)

    def waiting(self, count: int) -> npt.NDArray[np.bool_]:
        """Return (N, count) which of so many stages are pending."""
        return np.asarray((self.pending[:, None] >> np.arange(count)) & 1 != 0)

    def wait_for(self, stages: npt.NDArray[np.bool_]) -> None:
        """Set which stages (N, count) are pending."""
        self.pending[:] = stages @ (1 << np.arange(stages.shape[1], dtype=np.int64))

    @property
    def clean(self) -> npt.NDArray[np.bool_]:
        """(N,) whether the prediction is right; a tie is not, nor an output that is not a number."""
        right: npt.NDArray[np.bool_] = (self.status != Status.MISCLASSIFIED).all(axis=1) & (self.predicted >= 0)
        return right

    def count(self, status: Status) -> Ints:
        """Return (E,) how many samples have this status."""
        counts: Ints = np.count_nonzero(self.status == status, axis=0).astype(np.int64)
        return counts

    def lowest_level(self) -> Level | None:
        """Return the lowest level of a certified sample, or None where nothing is certified."""
        certified = self.level[self.status == Status.CERTIFIED]
        return Level(int(certified.min())) if certified.size else None

    def decided_by(self, stage: int) -> int:
        """Return how many samples got a verdict at any eps from this stage."""
        return int((self.stage == stage).any(axis=1).sum())


@dataclass
class Changes(Verdicts):
    """What is known of N samples of a network whose m outputs are numbers; a sample is certified once it is bounded.

    Attributes:
        lower, upper: (N, E, m) of every output on the ball, in the units of the outputs.
        change: (N, E, m) upper bounds of how far an output moves from its value at the sample.
    """

    lower: Float
    upper: Float
    change: Float

    @staticmethod
    def nothing(index: Ints, count: int, outputs: int) -> Changes:
        """Return what is known of samples at `count` values of eps before anything is."""
        known = Verdicts.unknown(index, np.zeros(len(index), dtype=np.int64), count)
        ends = (np.full((len(index), count, outputs), sign * np.inf) for sign in (-1, 1, 1))
        return Changes(*known.columns(), *ends)
