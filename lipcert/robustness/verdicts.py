"""What is known of each sample at each eps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from lipcert.network.enclosure import Float
from lipcert.proof.claims import Level

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int8]
NOBODY = -1  # no stage has decided
FIELDS = ("index", "labels", "predicted", "radius", "status", "stage", "level")


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
        status: (N, E) values of `Status`; along ascending eps certified ones first, attacked ones last.
        stage: (N, E) position of the stage that decided, or `NOBODY`.
        level: (N, E) values of `Level`: of the best proof that the sample is stable, `ESTIMATE` where there is none.
            A proof below the level of the run certifies nothing: the status stays unknown.
    """

    index: Ints
    labels: Ints
    predicted: Ints
    radius: Float
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
            status=np.full((size, count), Status.UNKNOWN, dtype=np.int8),
            stage=np.full((size, count), NOBODY, dtype=np.int8),
            level=np.full((size, count), Level.ESTIMATE, dtype=np.int8),
        )

    @staticmethod
    def join(parts: Sequence[Verdicts]) -> Verdicts:
        """Return several verdicts as one, in the order of the data."""
        whole = Verdicts(*(np.concatenate([getattr(part, name) for part in parts]) for name in FIELDS))
        return whole.take(np.argsort(whole.index, kind="stable"))

    def __len__(self) -> int:
        return len(self.index)

    def take(self, rows: Ints | npt.NDArray[np.bool_]) -> Verdicts:
        """Return a copy of some of them, given by position or mask."""
        return Verdicts(*(getattr(self, name)[rows] for name in FIELDS))

    def put(self, rows: Ints, part: Verdicts) -> None:
        """Write some of them, taken at positions, back."""
        for name in FIELDS:
            getattr(self, name)[rows] = getattr(part, name)

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
