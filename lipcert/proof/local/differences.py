r"""Differences from an anchor, such as the sample, as linear functions of the input and of bounded noises.

Write d for the difference between a point of the region and the anchor. Every elementwise neuron has dv = m dz + w
with |w| <= r |dz| (`secants`). Neurons with r = 0 are linear; the others, the *unstable* ones, each add one noise w.
So for any entry of a node, and any linear function of one,

    dz = G dx + N w + delta,    |delta| <= e,

where G and N come from functions sent back (`backward`) through the slopes m: the coefficients that arrive at the
outputs of an unstable neuron are those of its noise. Constants drop out. What is rounded on the way costs at most
|da|.M, M >= |dh| from the boxes of the differences, and is e.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lipcert.network.enclosure import Float, round_up
from lipcert.proof.local.affine import AffineStep, Box
from lipcert.proof.local.backward import NO_OTHERS, Account, Backward
from lipcert.proof.local.boxes import Steps
from lipcert.proof.local.proposal import Ints
from lipcert.proof.local.region import Mask
from lipcert.proof.local.straight import Lines

AT_ONCE = 2**26  # bytes for the coefficients of functions sent back at a time
_COPIES = 6


@dataclass(frozen=True)
class Rows:
    """S linear functions of one sample: G (S, n), N (S, u), e (S,); infinite e where nothing is known."""

    inputs: Float
    noise: Float
    error: Float

    def take(self, keep: Mask) -> Rows:
        """Return some of the functions."""
        return self if keep.all() else Rows(self.inputs[keep], self.noise[keep], self.error[keep])

    def widened(self, count: int) -> Rows:
        """Return the same with further noises, of which they know nothing."""
        return Rows.join([self], count)

    @staticmethod
    def join(parts: Sequence[Rows], count: int | None = None) -> Rows:
        """Return several as one, with further noises, of which they know nothing, up to a count of all."""
        inputs, error = (np.concatenate([getattr(p, name) for p in parts]) for name in ("inputs", "error"))
        noise = np.zeros((len(error), parts[0].noise.shape[1] if count is None else count))
        start = 0
        for part in parts:
            noise[start : start + len(part.error), : part.noise.shape[1]] = part.noise
            start += len(part.error)
        return Rows(inputs, noise, error)


def spans(boxes: Sequence[Box], centre: Sequence[Box]) -> list[Box]:
    """Return bounds of the differences of all nodes, from bounds of their values on the regions and at the anchors."""
    found = []
    for (low, high), (least, most) in zip(boxes, centre, strict=True):
        found.append((np.minimum(-round_up(np.maximum(most - low, 0.0)), 0.0), round_up(np.maximum(high - least, 0.0))))
    return found


class Differences(Backward):
    """Sends functions of differences back, for one sample; what it is given may grow, in node order.

    Args of the constructor:
        steps: the network.
        boxes: of the differences of all nodes, (1, *shape) each.
    """

    def __init__(self, steps: Steps, boxes: Sequence[Box]) -> None:
        self._slopes: dict[int, Lines] = {}
        self._picks: dict[int, Ints] = {}
        self._noise: dict[int, Float] = {}
        super().__init__(steps, boxes, self._slopes)

    def add(self, index: int, middle: Float, unstable: Ints) -> None:
        """Take the slopes (size,) of an activation node, and which of its neurons (u,) are unstable."""
        slope, zero = middle.reshape(1, 1, -1), np.zeros((1, 1, middle.size))
        self._slopes[index] = Lines(slope, zero, slope, zero)
        self._picks[index] = unstable

    def of_entries(self, index: int, positions: Ints) -> Rows:
        """Return the differences of entries (S,) of a node, at least one."""
        width = max(1, AT_ONCE // (_COPIES * 8 * max(node.size for node in self._steps.nodes[: index + 1])))
        parts = []
        for start in range(0, len(positions), width):
            at, a, _, lost = self.entries(index, positions[None, start : start + width])
            parts.append(self._rows(at, a, lost))
        return Rows.join(parts)

    def of_functions(self, index: int, a: Float, others: Mapping[int, Float] = NO_OTHERS) -> Rows:
        """Return the differences of linear functions (1, S, size) of a node, and of others before it besides."""
        return self._rows(index, a, np.zeros(a.shape[:2]), others)

    def _rows(self, index: int, a: Float, lost: Float, others: Mapping[int, Float] = NO_OTHERS) -> Rows:
        account = Account.zero(a)
        account.spend(lost)
        self._noise = {k: np.zeros((a.shape[1], len(pick))) for k, pick in self._picks.items()}
        inputs = self.send(index, a, account, 0, others)[0]
        known = account.finite & np.isfinite(account.allowance) & np.isfinite(inputs).all(axis=1)
        noise = np.concatenate([np.zeros((a.shape[1], 0)), *self._noise.values()], axis=1)
        return Rows(inputs, noise, np.where(known, account.allowance, np.inf)[0])

    def _add_offset(self, step: AffineStep, a: Float, account: Account) -> None:
        """Constants drop out of differences."""

    def _pull_lines(self, index: int, lines: Lines, a: Float, account: Account) -> Float:
        self._noise[index] = a[0][:, self._picks[index]]
        return super()._pull_lines(index, lines, a, account)
