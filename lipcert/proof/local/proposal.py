"""What a method may propose to the evaluator: slopes, multipliers, norms. None is trusted, and any are admissible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lipcert.network.enclosure import Float
from lipcert.proof.local.parts import Ints as Ints
from lipcert.proof.local.parts import Mask as Mask
from lipcert.proof.local.parts import Parts

Slopes = Mapping[int, tuple[Float, Float]]
"""By index of an elementwise node: slopes of the lines below and above, (B, 1 or S, *shape) each, for S functions."""


@dataclass(frozen=True)
class Proposal:
    """Slopes for functions of a network's normal form without a last softmax; without any, those of least area serve.

    Attributes:
        margins: for the margins against the rivals, in order.
        entries: by node, positions (B, S) in it that are worth another bound, and slopes for 2 S functions: the lower
            bounds of these entries, then their upper bounds.
        multipliers: sets of them, each by elementwise node, (B, *shape) positive numbers, for `Evaluator.anchored`;
            zero where a set has none for a sample.
        norms: upper bounds of the l2 norms of dense and convolution nodes.
        parts: how the regions are cut, for `Evaluator.parts`; None for not at all.
    """

    margins: Slopes = field(default_factory=dict)
    entries: Mapping[int, tuple[Ints, Slopes]] = field(default_factory=dict)
    multipliers: Sequence[Mapping[int, Float]] = ()
    norms: Mapping[int, float] = field(default_factory=dict)
    parts: Parts | None = None

    def take(self, samples: slice | Mask) -> Proposal:
        """Return the same of some samples."""
        return Proposal(
            _taken(self.margins, samples),
            {node: (rows[samples], _taken(slopes, samples)) for node, (rows, slopes) in self.entries.items()},
            [{node: e[samples] for node, e in multipliers.items()} for multipliers in self.multipliers],
            self.norms,
            None if self.parts is None else self.parts.take(samples),
        )


def _taken(slopes: Slopes, samples: slice | Mask) -> Slopes:
    return {node: (low[samples], high[samples]) for node, (low, high) in slopes.items()}


NOTHING = Proposal()
"""No proposal: the evaluator's own slopes."""
