"""The stages of the attack: the other side of certification."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lipcert.robustness.attack import Attacker
from lipcert.robustness.stages.batches import Batches
from lipcert.robustness.stages.clock import Clock
from lipcert.robustness.stages.stage import Images, Mask, Stage
from lipcert.robustness.verdicts import Ints, Status, Verdicts

FIRST, AGAIN, BEYOND = "attack", "attack again", "attack beyond the data"
LARGEST = 2000  # samples of a batch


class AttackStage(Stage):
    """Projected gradient attacks on what is not certified, smallest eps first.

    Args of the constructor:
        attacker: of the network. eps: ascending radii. clock: of the run; samples are left when it expires.
        name: which of the attack's tries are made: the `FIRST` one early, so that samples that fall at once cost
            nothing later; those `AGAIN` where cheap bounds did not certify; at last those `BEYOND` the range of the
            data, on balls that nothing decided.
    """

    def __init__(self, attacker: Attacker, eps: Sequence[float], clock: Clock, name: str) -> None:
        restarts = attacker.settings.restarts
        self.name = name
        self.cheap = name == FIRST
        self._attacker, self._eps = attacker, tuple(eps)
        self._attempts = {FIRST: range(1), AGAIN: range(1, restarts), BEYOND: range(restarts, 2 * restarts)}[name]
        self._batches = Batches(attacker.device, LARGEST, clock)

    def decide(self, images: Images, verdicts: Verdicts, own: int) -> None:
        """Mark samples as attacked at every eps that reaches an adversarial input that was found."""
        for column, eps in enumerate(self._eps):
            rows = np.flatnonzero((verdicts.status[:, column] == Status.UNKNOWN) & verdicts.clean)

            def attack(part: slice, rows: Ints = rows, eps: float = eps) -> Mask:
                own = rows[part]
                return self._attacker.run(
                    images[own], verdicts.labels[own], eps, index=verdicts.index[own], attempts=self._attempts
                )[0]

            broken = self._batches.run(len(rows), attack, np.array(False))
            for later in range(column, len(self._eps)):  # a ball of larger eps holds the same input
                hit = rows[broken]
                verdicts.status[hit, later] = Status.ATTACKED
                verdicts.stage[hit, later] = own
