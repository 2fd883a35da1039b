r"""Where to cut a network so that methods with an n^3 cost serve its parts: a plan from shapes alone.

Cuts fall at cut nodes (`network.cut`) only, behind an activation or a sum, or before an activation that is not
elementwise: so each affine operator is in one stretch, together with the activation behind it. (A reshape before a
convolution may be cut off as well: it has the norm 1, and some methods take convolutions only.) An activation within
a stretch, between two affine operators, is a *joint*, and so is a sum of branches. There multipliers gain over the
product of norms, and a cut gives that up: behind it only the norm of the covariance bound is known, not the bound
itself. Of one neuron nothing is lost, of n neurons the more, the more directions there are; log2(n) stands for it here.

The plan maximises the sum over joints of log2(n) times the gain of the method that takes the stretch, among all
choices of cuts for which every stretch has a method within the limits, or falls to the product with no gain at all. Of
equal plans the one with fewer stretches is taken, then the one with less effort. It is found by dynamic programming
over the cut nodes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from lipcert.bounds.effort import GIB, Effort, Estimate
from lipcert.bounds.method import Method
from lipcert.network.cut import cut_nodes, stretch
from lipcert.network.graph import Network
from lipcert.network.operators import Activation, Affine, Concat, Conv, Elementwise, Gather, Reshape, Sum
from lipcert.proof.claims import Norm

HALVINGS = 12
MOST_PLACES = 24  # besides those that have to be; the plan looks at all pairs of them


@dataclass(frozen=True)
class Tool:
    """A method that may take a stretch.

    Attributes:
        method: the method.
        gain: what it gains at a joint, relative to other tools; 0 for the product.
        estimate: what it needs.
    """

    method: Method
    gain: float
    estimate: Estimate


@dataclass(frozen=True)
class Section:
    """A planned stretch: the nodes behind `start` up to `end`.

    Attributes:
        start, end: cut nodes. tools: what fits within the limits, best first; the product is always the last.
        effort: of the first tool.
    """

    start: int
    end: int
    tools: tuple[Tool, ...]
    effort: Effort

    @property
    def gains(self) -> bool:
        """Whether another tool than the product is planned."""
        return len(self.tools) > 1


@dataclass(frozen=True, eq=False)
class Planner:
    """What a plan depends on.

    Attributes:
        network: a normal form. norm: of the bound.
        tools: best first; the last one is the product, which serves every network.
        limits: bytes for each stretch, seconds for all together.
    """

    network: Network
    norm: Norm
    tools: tuple[Tool, ...]
    limits: Effort
    _known: dict[tuple[int, int], list[tuple[Tool, Effort]]] = field(default_factory=dict, init=False)

    def plan(self) -> tuple[Section, ...]:
        """Return the sections of the network, in order; looks at shapes only."""
        share = self.limits.seconds
        for _ in range(HALVINGS):
            found = self._best(share)
            if sum(section.effort.seconds for section in found) <= self.limits.seconds:
                return found
            share /= 2
        return self._best(0.0)

    def reasons(self) -> Iterator[str]:
        """Yield why networks that a tool serves as a whole, or runs between other activations, have to be cut."""
        ends = (0, *(c for c in self.places[1:-1] if self._is_forced(c)), len(self.network.nodes) - 1)
        for start, end in pairwise(ends):
            serving = self._serving(start, end) if weight_of_joints(self.network, start, end) > 0 else []
            if serving and not self.section(start, end, self.limits.seconds).gains:
                tool, need = serving[-1]
                yield (
                    f"'{tool.method.name}' up to '{self.network.nodes[end].name}' would need about "
                    f"{need.seconds:.0f} s and {need.bytes / GIB:.1f} GiB: cut to stay within "
                    f"{self.limits.seconds:.0f} s and {self.limits.bytes / GIB:.1f} GiB"
                )

    @cached_property
    def places(self) -> tuple[int, ...]:
        """Cut nodes at which a cut may fall, with input and output; in deep networks the narrowest of a few each."""
        cuts = cut_nodes(self.network)
        inner = [c for c in cuts[1:-1] if self._is_place(c)]
        window = -(-len(inner) // MOST_PLACES)
        narrowest = (
            min(inner[i : i + window], key=lambda c: self.network.nodes[c].size)
            for i in range(0, len(inner), max(window, 1))
        )
        return tuple(sorted({cuts[0], *narrowest, *filter(self._is_forced, inner), cuts[-1]}))

    def section(self, start: int, end: int, seconds: float) -> Section:
        """Return a stretch with all tools that serve it within so many seconds and the limit of bytes."""
        within = [
            (tool, effort)
            for tool, effort in self._serving(start, end)
            if effort.seconds <= seconds and effort.bytes <= self.limits.bytes
        ]
        if not within:
            return self._plain(start, end)
        return Section(start, end, (*(tool for tool, _ in within), self.tools[-1]), within[0][1])

    def _plain(self, start: int, end: int) -> Section:
        return Section(start, end, self.tools[-1:], Effort(0.0, 0.0))

    def _serving(self, start: int, end: int) -> list[tuple[Tool, Effort]]:
        """Return the tools before the last one that serve a stretch, with their efforts; kept for the next call."""
        if (start, end) not in self._known:
            part = stretch(self.network, start, end)
            serving = (tool for tool in self.tools[:-1] if self.norm in tool.method.norms)
            self._known[start, end] = [
                (tool, tool.estimate(part)) for tool in serving if tool.method.refuses(part, self.norm) is None
            ]
        return self._known[start, end]

    def _is_place(self, index: int) -> bool:
        op = self.network.nodes[index].op
        readers = (self.network.nodes[i].op for i in self.network.consumers[index])
        before_conv = isinstance(op, Reshape) and any(isinstance(reader, Conv) for reader in readers)
        return self._is_forced(index) or before_conv or not isinstance(op, Affine)

    def _is_forced(self, index: int) -> bool:
        """Whether an activation that is not elementwise stands at or right behind a node."""
        ops = (self.network.nodes[i].op for i in (index, *self.network.consumers[index]))
        return any(isinstance(op, Activation) and not isinstance(op, Elementwise) for op in ops)

    def _best(self, seconds: float) -> tuple[Section, ...]:
        """Return the best path from the first place to the last."""
        best: dict[int, tuple[float, int, float, tuple[Section, ...]]] = {self.places[0]: (0.0, 0, 0.0, ())}
        for position, start in enumerate(self.places[:-1]):
            value, count, effort, before = best[start]
            for section, gain in self._ahead(start, self.places[position + 1 :], seconds):
                path = (value + gain, count - 1, effort - section.effort.seconds, (*before, section))
                if section.end not in best or path[:3] > best[section.end][:3]:
                    best[section.end] = path
        return best[self.places[-1]][3]

    def _ahead(self, start: int, ends: Sequence[int], seconds: float) -> Iterator[tuple[Section, float]]:
        """Yield the sections from one place to all later ones, each with its gain.

        Once joints are too much for every tool, they still are with more nodes behind.
        """
        stuck = False
        for end in ends:
            weight = 0.0 if stuck else weight_of_joints(self.network, start, end)
            section = self.section(start, end, seconds) if weight > 0 else self._plain(start, end)
            stuck = stuck or (weight > 0 and not section.gains)
            yield section, section.tools[0].gain * weight


def weight_of_joints(network: Network, start: int, end: int) -> float:
    """Return the sum of log2(n) over the joints of the stretch between two cut nodes."""
    nodes = network.nodes[start + 1 : end + 1]
    layers = [i for i, n in enumerate(nodes) if isinstance(n.op, Affine) and not isinstance(n.op, (Gather, Reshape))]
    between = range(layers[0] + 1, layers[-1]) if layers else range(0)
    return sum(
        math.log2(node.size)
        for i, node in enumerate(nodes)
        if isinstance(node.op, (Sum, Concat)) or (isinstance(node.op, Elementwise) and i in between)
    )
