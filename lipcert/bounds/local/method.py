"""What a local method is: something that bounds margins on the ball around each sample."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from lipcert.bounds.local import alpha_crown, crown
from lipcert.bounds.local.hopes import Hopes
from lipcert.bounds.local.intervals import boxes
from lipcert.bounds.local.margins import differences, margins_on_boxes, settle
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.second_look import look_twice
from lipcert.bounds.local.view import View
from lipcert.network.enclosure import Float
from lipcert.proof.claims import NORMS, Level, Norm
from lipcert.proof.local import LOCAL_RULES, NOTHING, Evaluator, Ints, Proposal, Region
from lipcert.proof.refusal import Refused

Suggest = Callable[[Tensor], Proposal]
"""From indices of some samples to what `LocalMethod.verified_margins` may use on them."""


@dataclass(frozen=True, eq=False)
class Bounds:
    """What a method found for B samples.

    Attributes:
        margins: lower bounds of the label's logit minus those of rivals.
        proposal: of some of the samples. What it still costs is paid when it is called.
    """

    margins: Tensor
    proposal: Suggest = lambda samples: NOTHING


class LocalMethod(ABC):
    """One way to bound margins around samples; registered in `bounds.local.registry`.

    Class attributes:
        name: spelling on the command line.
        summary: one line for people.
        norms: norms it serves.
        cost: what it costs, in words.
        level: of its bounds.
        rule: of `proof.local` that derives its bounds again, at level verified; None where there is none.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    norms: ClassVar[frozenset[Norm]] = frozenset(NORMS)
    cost: ClassVar[str]
    level: ClassVar[Level] = Level.NUMERICAL
    rule: ClassVar[str | None] = None

    @property
    def derived(self) -> bool:
        """Whether `verified_margins` derives its bounds again."""
        return self.rule is not None

    def refuses(self, view: View, norm: Norm) -> str | None:
        """Return why this method cannot serve a network, or None where it can."""
        return None if norm in self.norms else f"it serves {', '.join(sorted(self.norms))}, not {norm}"

    def at_once(self, view: View) -> int | None:
        """Return how many samples fit the memory at a time on a CPU, where that is known; see `proof.local.costs`."""
        return view.steps.costs.at_once if view.steps is not None and view.steps.costs.looks else None

    @torch.no_grad()
    def bound(self, view: View, ball: Ball, labels: Tensor) -> Bounds:
        """Return lower bounds of the label's logit minus each rival's, on the region of each sample.

        Args:
            view: the network.
            ball: B regions.
            labels: (B,) int64.

        Returns:
            Margins (B, classes): infinite for the label itself; minus infinity where nothing is proved, for a sample
            that is not valid (NaN, outside the input box) too. Level: that of the class. With them, what
            `verified_margins` may use; `NOTHING` where there is nothing but what it finds by itself.
        """
        found = self._bound(view, ball, labels)
        return Bounds(settle(found.margins, ball, labels), torch.no_grad()(found.proposal))

    def margins(self, view: View, ball: Ball, labels: Tensor) -> Tensor:
        """Return the margins of `bound`."""
        return self.bound(view, ball, labels).margins

    def verified_margins(self, evaluator: Evaluator, region: Region, labels: Ints, proposal: Proposal) -> Float:
        """Return what `margins` does, derived with every rounding error counted. Level: verified.

        Args:
            evaluator: of the same network.
            region: B regions.
            labels: (B,) int64.
            proposal: from `bound`, or from anywhere else.

        Raises:
            Refused: this process does not compute as proofs assume, or the method is not `derived`.
        """
        if self.rule is None:
            raise Refused(f"the bounds of '{self.name}' have no verified form")
        return LOCAL_RULES[self.rule].derive(evaluator, region, labels, proposal)

    @abstractmethod
    def _bound(self, view: View, ball: Ball, labels: Tensor) -> Bounds:
        """Return (B, classes - 1) bounds for the rivals in order; numbers that are not finite prove nothing."""


def layer_norms(view: View, ball: Ball) -> dict[int, float]:
    """Return `View.norms` where the norm of the balls needs them, which linf balls do not."""
    return {} if ball.norm == "linf" else view.norms


class Intervals(LocalMethod):
    """Interval propagation with norms."""

    name: ClassVar[str] = "intervals"
    summary: ClassVar[str] = "interval propagation, intersected with centre +- radius times norms"
    cost: ClassVar[str] = "two forward passes"
    rule: ClassVar[str | None] = "local-intervals/v1"

    def _bound(self, view: View, ball: Ball, labels: Tensor) -> Bounds:
        norms = layer_norms(view, ball)
        found = margins_on_boxes(view, boxes(view, ball), labels)
        return Bounds(found, lambda samples: Proposal(norms=norms) if norms else NOTHING)


class Crown(LocalMethod):
    """CROWN with interval bounds.

    Args of the constructor:
        beyond: samples are given up early where every margin sinks below zero by so many times its value at the sample
            (`hopes`); infinity for none.
    """

    name: ClassVar[str] = "crown"
    summary: ClassVar[str] = "linear bounds sent backwards from every layer (CROWN)"
    cost: ClassVar[str] = "one backward pass per undecided neuron"
    rule: ClassVar[str | None] = "local-lines/v1"

    def __init__(self, beyond: float = math.inf) -> None:
        self.beyond = beyond

    def _bound(self, view: View, ball: Ball, labels: Tensor) -> Bounds:
        hopes = Hopes(labels, self.beyond) if self.beyond < math.inf else None
        relaxed = crown.relax_network(view, ball, hopes=hopes)

        def propose(samples: Tensor) -> Proposal:
            """Return the slopes of the second look, see `second_look`."""
            some, rows = relaxed.take(samples), differences(view, labels[samples])
            better = look_twice(view, some.ball, some.relaxations, rows)[1]
            pairs = {i: (found.lines.low_slope, found.lines.high_slope) for i, found in better.items()}
            slopes = {i: (low.cpu().double().numpy(), high.cpu().double().numpy()) for i, (low, high) in pairs.items()}
            return Proposal(slopes, norms=layer_norms(view, ball))

        return Bounds(crown.best_margins(relaxed, labels), propose)


class AlphaCrown(LocalMethod):
    """CROWN with slopes optimised by gradient steps.

    Args of the constructor:
        steps: of the optimiser, for each bound.
    """

    name: ClassVar[str] = "alpha-crown"
    summary: ClassVar[str] = "CROWN with the slopes optimised for every margin and every narrow layer"
    cost: ClassVar[str] = "about forty times CROWN"
    rule: ClassVar[str | None] = "local-lines/v1"

    def __init__(self, steps: int = 10) -> None:
        self.steps = steps

    def _bound(self, view: View, ball: Ball, labels: Tensor) -> Bounds:
        relaxed = alpha_crown.tightened(view, ball, self.steps)

        def propose(samples: Tensor) -> Proposal:
            found = alpha_crown.propose(relaxed.take(samples), labels[samples], self.steps)
            return replace(found, norms=layer_norms(view, ball))

        return Bounds(alpha_crown.margins(relaxed, labels, self.steps), propose)
