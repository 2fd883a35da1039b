"""What a local method is: something that bounds margins on the ball around each sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from lipcert.bounds.local import alpha_crown, crown
from lipcert.bounds.local.intervals import boxes
from lipcert.bounds.local.margins import differences, margins_on_boxes, settle
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.second_look import look_twice
from lipcert.bounds.local.view import View
from lipcert.network.enclosure import Float
from lipcert.proof.claims import NORMS, Level, Norm
from lipcert.proof.local import LOCAL_RULES, Evaluator, Ints, Proposal, Region
from lipcert.proof.refusal import Refused


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

    @torch.no_grad()
    def margins(self, view: View, ball: Ball, labels: Tensor) -> Tensor:
        """Return lower bounds of the label's logit minus each rival's, on the region of each sample.

        Args:
            view: the network.
            ball: B regions.
            labels: (B,) int64.

        Returns:
            (B, classes): infinite for the label itself; minus infinity where nothing is proved, for a sample that is
            not valid (NaN, outside the input box) too. Level: that of the class.
        """
        return settle(self._margins(view, ball, labels), ball, labels)

    @torch.no_grad()
    def propose(self, view: View, ball: Ball, labels: Tensor) -> Proposal | None:
        """Return what `verified_margins` may use on these samples, None for nothing.

        Arguments as in `margins`. Here: the norms of the layers, where the norm of the balls needs them.
        """
        return None if ball.norm == "linf" else Proposal(norms=view.norms)

    def verified_margins(self, evaluator: Evaluator, region: Region, labels: Ints, proposal: Proposal) -> Float:
        """Return what `margins` does, derived with every rounding error counted. Level: verified.

        Args:
            evaluator: of the same network.
            region: B regions.
            labels: (B,) int64.
            proposal: from `propose`, or from anywhere else.

        Raises:
            Refused: this process does not compute as proofs assume, or the method is not `derived`.
        """
        if self.rule is None:
            raise Refused(f"the bounds of '{self.name}' have no verified form")
        return LOCAL_RULES[self.rule].derive(evaluator, region, labels, proposal)

    @abstractmethod
    def _margins(self, view: View, ball: Ball, labels: Tensor) -> Tensor:
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

    def _margins(self, view: View, ball: Ball, labels: Tensor) -> Tensor:
        return margins_on_boxes(view, boxes(view, ball), labels)


class Crown(LocalMethod):
    """CROWN with interval bounds."""

    name: ClassVar[str] = "crown"
    summary: ClassVar[str] = "linear bounds sent backwards from every layer (CROWN)"
    cost: ClassVar[str] = "one backward pass per undecided neuron"
    rule: ClassVar[str | None] = "local-lines/v1"

    @torch.no_grad()
    def propose(self, view: View, ball: Ball, labels: Tensor) -> Proposal:
        """Return the slopes of the second look, see `second_look`."""
        relaxed = crown.relax_network(view, ball)
        better = look_twice(view, ball, relaxed.relaxations, differences(view, labels))[1]
        pairs = {i: (found.lines.low_slope, found.lines.high_slope) for i, found in better.items()}
        slopes = {i: (low.cpu().double().numpy(), high.cpu().double().numpy()) for i, (low, high) in pairs.items()}
        return Proposal(slopes, norms=layer_norms(view, ball))

    def _margins(self, view: View, ball: Ball, labels: Tensor) -> Tensor:
        return crown.best_margins(crown.relax_network(view, ball), labels)


class AlphaCrown(Crown):
    """CROWN with slopes optimised by gradient steps.

    Args of the constructor:
        steps: of the optimiser, for each bound.
    """

    name: ClassVar[str] = "alpha-crown"
    summary: ClassVar[str] = "CROWN with the slopes optimised for every margin and every narrow layer"
    cost: ClassVar[str] = "about forty times CROWN"

    def __init__(self, steps: int = 10) -> None:
        self.steps = steps

    @torch.no_grad()
    def propose(self, view: View, ball: Ball, labels: Tensor) -> Proposal:
        """Return the optimised slopes."""
        return replace(alpha_crown.propose(view, ball, labels, self.steps), norms=layer_norms(view, ball))

    def _margins(self, view: View, ball: Ball, labels: Tensor) -> Tensor:
        return alpha_crown.margins(alpha_crown.tightened(view, ball, self.steps), labels, self.steps)
