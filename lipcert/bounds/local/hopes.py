"""Samples of which CROWN will prove nothing, by far, recognised before most of its work.

While boxes are narrowed, layer by layer, all margins are bounded once as if those ahead would come out narrow: a tenth,
or a hundredth, of what intervals say, around the values at the sample. That is no bound of anything; but where even so
every margin sinks below zero by several times its value at the sample, so it does in the end: on five networks no final
bound was above the better of both guesses. Nothing wrong can come of it: the boxes of such a sample stay as wide as
they are, and hold.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lipcert.bounds.local.backward import lower_bounds
from lipcert.bounds.local.intervals import Boxes
from lipcert.bounds.local.margins import differences
from lipcert.bounds.local.products import products
from lipcert.bounds.local.relaxations import Relaxation, relax
from lipcert.network.operators import Activation

BEYOND = 4.0  # times the margin: from there on, the methods after CROWN are not tried either (`robustness.stages`)
_SHARES = (0.1, 0.01)  # of the intervals ahead
_WORTH = 256  # entries of a sample to be narrowed at a node, from which a guess pays


class Hopes:
    """Guesses once, at the first inner node that is expensive, which samples to spare.

    Args of the constructor:
        labels: (B,). beyond: how many times its value every margin has to sink below zero.
    """

    def __init__(self, labels: Tensor, beyond: float) -> None:
        self._labels, self._beyond = labels, beyond
        self._spared: Tensor | None = None

    def spared(self, grown: Boxes, relaxations: Mapping[int, Relaxation], mask: Tensor) -> Tensor:
        """Return (B,) which samples are spared.

        Args:
            grown, relaxations: boxes of the nodes so far, the last one not narrowed yet, and relaxations.
            mask: (B, size) the entries of the last node that would be narrowed.
        """
        costly = mask.sum(dim=1) >= _WORTH
        if self._spared is None and relaxations and bool(costly.any()):
            self._spared = costly & self._hopeless(grown, relaxations)
        return torch.zeros_like(costly) if self._spared is None else self._spared

    def _hopeless(self, grown: Boxes, relaxations: Mapping[int, Relaxation]) -> Tensor:
        rows = differences(grown.view, self._labels)
        sunk = -self._beyond * products(rows, grown.centre[-1])
        guesses = [_guess(grown, relaxations, share, rows) for share in _SHARES]
        return (torch.maximum(*guesses) < torch.minimum(sunk, torch.zeros_like(sunk))).all(dim=1)


def _guess(grown: Boxes, relaxations: Mapping[int, Relaxation], share: float, rows: Tensor) -> Tensor:
    """Return (B, S) what CROWN would say of functions of the outputs if boxes ahead came out narrow."""
    view, ahead, lined, last = grown.view, grown.copy(), dict(relaxations), len(grown.found) - 1
    while len(ahead.found) < len(view.nodes):
        index = ahead.grow()
        if isinstance(view.nodes[index].op, Activation):
            boxes = []
            for source in view.nodes[index].inputs:
                (low, high), centre = ahead.found[source], grown.centre[source]
                shrunk = centre + share * (low - centre), centre + share * (high - centre)
                boxes.append(shrunk if source >= last else (low, high))
            lined[index] = relax(view, index, boxes, ahead.found[index])
    return lower_bounds(view, grown.ball, lined, len(view.nodes) - 1, rows)
