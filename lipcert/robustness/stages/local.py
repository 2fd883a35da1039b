"""The stages of local methods: samples whose margins stay positive on the whole ball.

A proof below the level of the run does not count: the sample stays unknown at that eps, with the level of the proof
beside it in the records, and the report says how many such samples there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from lipcert.network.enclosure import Float
from lipcert.proof.claims import Level
from lipcert.robustness.stages.prover import Balls, Mask, Prover
from lipcert.robustness.stages.stage import Images, Stage
from lipcert.robustness.verdicts import Ints, Status, Verdicts

FINENESS = 256  # radii that a search may return, evenly spaced in their logarithms
RADIUS_BY = "radius by "  # begins the name of a stage that searches radii, before that of its method
REACH, DEPTH = 4.0, 1000.0  # the largest of them over the largest eps, and the smallest below the smallest eps

Tried = Callable[[Ints, Ints], Mask]


def search(low: Ints, high: Ints, proves: Tried) -> Ints:
    """Return for each sample how many columns are proved, by bisection: what holds in one holds in all before it.

    Args:
        low: (N,) columns that are proved already. high: (N,) columns that are not given up; low <= high.
        proves: returns which of some samples, by position, are proved in the column given for each. A sample that
            fails in a column is not tried in later ones.
    """
    low, high = low.copy(), high.copy()
    while len(rows := np.flatnonzero(low < high)):
        middle = (low[rows] + high[rows]) // 2  # 0 of {0, 1}: small radii first, where a failure saves most
        proved = proves(rows, middle)
        low[rows[proved]] = middle[proved] + 1
        high[rows[~proved]] = middle[~proved]
    return low


class LocalStage(Stage):
    """Certifies samples at the radii of a run.

    Args of the constructor:
        prover: of the method.
        eps: ascending radii. required: level of a certified sample.
    """

    def __init__(self, prover: Prover, eps: Sequence[float], required: Level) -> None:
        self.name = prover.method.name
        self._prover, self._eps, self._required = prover, np.array(eps), required
        self._uncounted = np.zeros(len(eps), dtype=np.int64)

    def remarks(self) -> tuple[str, ...]:
        """Say how many samples are proved at a level that does not count, or did not fit the memory."""
        said = []
        if self._uncounted.any():
            pairs = zip(self._uncounted, self._eps, strict=True)
            counts, label = ", ".join(f"{n} at {eps:g}" for n, eps in pairs), self._prover.method.level.label
            said.append(
                f"'{self.name}' proves further samples at level {label} only ({counts}): they count as unknown; "
                f"--level {label} counts them"
            )
        if self._prover.hopeless:
            said.append(
                f"'{self.name}' was spared {self._prover.hopeless} balls on which linear bounds miss by far: --method "
                f"{self.name} tries all"
            )
        if self._prover.short_of_memory:
            said.append(f"'{self.name}' had too little memory for {self._prover.short_of_memory} balls")
        return tuple(said)

    def decide(self, images: Images, verdicts: Verdicts, own: int) -> None:
        """Mark the samples whose margins are proved positive."""
        open_ = (verdicts.status == Status.UNKNOWN) & verdicts.clean[:, None]
        any_open = open_.any(axis=1)
        low = np.where(any_open, open_.argmax(axis=1), 0)  # open columns follow each other: see `Verdicts`
        high = np.where(any_open, low + open_.sum(axis=1), 0)
        weaker = np.zeros(len(verdicts), dtype=np.int64)  # columns proved below the level of the run
        known = verdicts.level.copy()

        def proves(rows: Ints, columns: Ints) -> Mask:
            levels = self._prover.levels(Balls(images[rows], verdicts.labels[rows], self._eps[columns]))
            below = (levels > Level.ESTIMATE) & (levels < self._required) & (not self._prover.out_of_time)
            weaker[rows[below]] = np.maximum(weaker[rows[below]], columns[below] + 1)
            for row, column, level in zip(rows.tolist(), columns.tolist(), levels.tolist(), strict=True):
                verdicts.level[row, : column + 1] = np.maximum(verdicts.level[row, : column + 1], level)
            counted: Mask = levels >= self._required
            return counted

        reached = search(low, high, proves)
        self._certify(verdicts, low, reached, own)
        position = np.arange(len(self._eps))
        further = (position >= reached[:, None]) & (position < weaker[:, None]) & (known < self._prover.method.level)
        self._uncounted += further.sum(axis=0)

    def _certify(self, verdicts: Verdicts, low: Ints, reached: Ints, own: int) -> None:
        position = np.arange(len(self._eps))
        won = (position >= low[:, None]) & (position < reached[:, None])
        verdicts.status[won] = Status.CERTIFIED
        verdicts.stage[won] = own
        rows = won.any(axis=1)
        verdicts.radius[rows] = np.maximum(verdicts.radius[rows], self._eps[reached[rows] - 1])


class RadiusStage(Stage):
    """Raises certified radii by bisection over a fine grid; only proofs at the level of the run count.

    Args of the constructor:
        prover, eps, required: as of `LocalStage`.
    """

    def __init__(self, prover: Prover, eps: Sequence[float], required: Level) -> None:
        self.name = f"{RADIUS_BY}{prover.method.name}"
        self._prover, self._eps, self._required = prover, np.array(eps), required
        self._grid = radii(eps)

    def wants(self, verdicts: Verdicts) -> Mask:
        """Samples that are classified correctly and have a radius below the largest looked for."""
        wanted: Mask = verdicts.clean & (verdicts.radius < self._grid[-1])
        return wanted

    def decide(self, images: Images, verdicts: Verdicts, own: int) -> None:
        """Raise radii, and certify where they reach eps."""
        low = np.searchsorted(self._grid, verdicts.radius, side="right").astype(np.int64)
        hit = verdicts.status == Status.ATTACKED
        first = np.where(hit.any(axis=1), self._eps[hit.argmax(axis=1)], np.inf)
        high = np.searchsorted(self._grid, first, side="left").astype(np.int64)
        high = np.where(self.wants(verdicts), np.maximum(low, high), low)

        def proves(rows: Ints, columns: Ints) -> Mask:
            levels = self._prover.levels(Balls(images[rows], verdicts.labels[rows], self._grid[columns]))
            counted: Mask = levels >= self._required
            return counted

        reached = search(low, high, proves)
        better = reached > low
        verdicts.radius[better] = self._grid[reached[better] - 1]
        won = better[:, None] & (verdicts.radius[:, None] >= self._eps) & (verdicts.status == Status.UNKNOWN)
        verdicts.status[won] = Status.CERTIFIED
        verdicts.stage[won] = own
        verdicts.level[won] = np.maximum(verdicts.level[won], np.int8(self._required))


def radii(eps: Sequence[float]) -> Float:
    """Return the radii that a search may return, ascending; the radii of the run are among them."""
    grid = np.geomspace(min(eps) / DEPTH, max(eps) * REACH, FINENESS)
    found: npt.NDArray[np.float64] = np.union1d(grid, np.array(eps))
    return found
