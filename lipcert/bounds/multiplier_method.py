"""What the methods share that propose multipliers block by block through the lifted form."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar

import numpy as np

from lipcert.bounds.chain import lifted_obstacle
from lipcert.bounds.frontier import Addition, Frontier, last_reader
from lipcert.bounds.method import Method, Proposal
from lipcert.bounds.targets import forms, propose_target, provable_target
from lipcert.errors import InconclusiveError
from lipcert.network.enclosure import Float
from lipcert.network.graph import Network
from lipcert.proof.claims import Norm
from lipcert.proof.lifted import Lifted, Row
from lipcert.proof.rules.multipliers import Multipliers

STRETCHES = (1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
"""Factors on 1 / (2 lambda), tried where other blocks stay beside the new one: a larger one lets them grow less."""


class LayerwiseMethod(Method):
    """Walks the network once; a subclass chooses one block's multipliers from S = R P R' alone."""

    norms: ClassVar[frozenset[Norm]] = Multipliers.norms

    def refuses(self, network: Network, norm: Norm) -> str | None:
        """Return why the network has no lifted form of affordable size, or None."""
        return lifted_obstacle(network)

    def propose(self, network: Network, norm: Norm, time_limit: float | None) -> Proposal:
        """Propose all multipliers; the time limit is not needed."""
        lifted, form = forms(network)
        with np.errstate(all="ignore"):  # what is not finite is refused by the rule
            try:
                multipliers = self.multipliers(lifted)
            except np.linalg.LinAlgError:
                raise InconclusiveError("the layers' gains over- or underflow float64") from None
            return propose_target(multipliers, provable_target(form, multipliers))

    def multipliers(self, lifted: Lifted) -> list[Float]:
        """Return one positive vector per block.

        Raises:
            numpy.linalg.LinAlgError: the gains over- or underflow.
        """
        last = last_reader(lifted)
        rows = [*(block.row for block in lifted.blocks), lifted.output]
        frontier = Frontier.of_input(lifted.inputs)
        multipliers: list[Float] = []
        for k, block in enumerate(lifted.blocks, start=1):
            keep = tuple(b for b in (*frontier.blocks, k) if last[b] > k)
            new = Addition(k, block.row, frontier.gain(block.row), block.alpha, block.beta, keep)
            inverse = self.layer(new.gain, block.alpha, block.beta)
            if len(keep) > 1:
                inverse = inverse * _stretch(frontier, new, inverse, rows[k:])
            frontier = new.join(frontier, inverse)
            multipliers.append(0.5 / inverse)
        return multipliers

    @abstractmethod
    def layer(self, gain: Float, alpha: Float, beta: Float) -> Float:
        """Return 1 / (2 lambda) > 0 for one block, such that diag(it) - R S R > 0, R = diag((beta - alpha) / 2).

        gain: S, (n, n) positive semidefinite. alpha, beta: (n,) slope intervals.
        """


def _stretch(frontier: Frontier, new: Addition, inverse: Float, later: list[Row]) -> float:
    """Return the factor that makes the gain of the next reader of the new block smallest."""
    reader = next((row for row in later if new.block in row), None)
    if reader is None:
        return 1.0

    gain = new.outlook(frontier, reader)
    best, least = 1.0, math.inf
    for factor in STRETCHES:  # a convex function of the factor: once it grows it grows on
        value = gain(inverse * factor)
        if value >= least:
            break
        best, least = factor, value
    return best
