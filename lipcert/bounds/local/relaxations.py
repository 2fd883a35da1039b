"""Linear bounds of every kind of activation on a box, and how linear functions pass back through them.

A relaxation knows, for each output y_i of an activation, a linear function of its inputs below and one above it, valid
on the boxes that it was made for. Taking the one below where a_i >= 0 and the one above elsewhere gives a linear
function of the inputs below a.y, for any a: that is what `pull` returns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from lipcert.bounds.local.lines import Lines, Polyline, best_lines, polyline
from lipcert.bounds.local.products import products
from lipcert.bounds.local.selections import Selection, join, pool_candidates, select, stacked_candidates
from lipcert.bounds.local.view import View
from lipcert.network.operators import Elementwise, Extremum, MaxPool, Sort

Box = tuple[Tensor, Tensor]  # least and largest values of a node, (B, *shape) each


class Relaxation(ABC):
    """Linear functions below and above the outputs of one activation node."""

    @abstractmethod
    def pull(self, a: Tensor) -> tuple[list[Tensor | None], Tensor]:
        """Return a linear function of the node's inputs below each a.y.

        Args:
            a: (B, S, *shape) coefficients on the outputs.

        Returns:
            For each input node, coefficients (B, S, *its shape) or None for zero; and the constants (B, S).
        """

    @abstractmethod
    def take(self, samples: Tensor) -> Self:
        """Return the same of some samples, given by index."""


@dataclass(frozen=True)
class Linear(Relaxation):
    """Lines of an elementwise activation.

    Attributes:
        lines: tensors (B, S or 1, *shape).
        polyline: what they rest on, for whoever wants other slopes.
    """

    lines: Lines
    polyline: Polyline

    def pull(self, a: Tensor) -> tuple[list[Tensor | None], Tensor]:
        """Return one coefficient tensor and the constants."""
        lines, constant = self.lines, a.new_zeros(a.shape[:2])
        no_low, no_high = self.without_intercepts
        under = a.clamp(max=0.0)
        if not no_low:
            constant = constant + _contract(a - under, lines.low_intercept)
        if not no_high:
            constant = constant + _contract(under, lines.high_intercept)
        return [(a * lines.low_slope).addcmul_(under, lines.high_slope - lines.low_slope)], constant

    def take(self, samples: Tensor) -> Linear:
        """Return the same of some samples."""
        return Linear(self.lines.take(samples), self.polyline.take(samples))

    @cached_property
    def without_intercepts(self) -> tuple[bool, bool]:
        """Whether all intercepts below, and above, are zero."""
        return not bool(self.lines.low_intercept.any()), not bool(self.lines.high_intercept.any())


@dataclass(frozen=True)
class Chosen(Relaxation):
    """Maxima and minima of entries of the inputs.

    Attributes:
        selections: one, or two whose outputs alternate on the last axis.
        shapes: of the input nodes.
    """

    selections: Sequence[Selection]
    shapes: Sequence[tuple[int, ...]]

    def pull(self, a: Tensor) -> tuple[list[Tensor | None], Tensor]:
        """Return the coefficients of each input and the constants."""
        count = len(self.selections)
        found = [s.pull(a[..., k::count].flatten(2)) for k, s in enumerate(self.selections)]
        flat, constant = sum(f[0] for f in found), sum(f[1] for f in found)
        assert isinstance(flat, Tensor) and isinstance(constant, Tensor)
        parts = flat.chunk(len(self.shapes), dim=2)
        return [part.reshape(*a.shape[:2], *shape) for part, shape in zip(parts, self.shapes, strict=True)], constant

    def take(self, samples: Tensor) -> Chosen:
        """Return the same of some samples."""
        return Chosen([selection.take(samples) for selection in self.selections], self.shapes)


@dataclass(frozen=True)
class Constant(Relaxation):
    """Only the box (B, *shape) of the outputs: no line is better known."""

    low: Tensor
    high: Tensor

    def pull(self, a: Tensor) -> tuple[list[Tensor | None], Tensor]:
        """Return nothing but constants."""
        constant = _contract(a.clamp(min=0.0), self.low[:, None]) + _contract(a.clamp(max=0.0), self.high[:, None])
        return [None], constant

    def take(self, samples: Tensor) -> Constant:
        """Return the same of some samples."""
        return Constant(self.low[samples], self.high[samples])


def relax(view: View, index: int, inputs: Sequence[Box], output: Box) -> Relaxation:
    """Return the relaxation of an activation node.

    Args:
        view, index: the network and the node.
        inputs: boxes of its inputs, in order.
        output: a box of its outputs, used where no lines are known (softmax, sorting more than two).
    """
    node = view.nodes[index]
    shapes = [view.nodes[i].shape for i in node.inputs]
    match node.op:
        case Elementwise():
            shape, (low, high) = view.activation(index), inputs[0]
            line = polyline(shape, low, high)
            found = best_lines(shape, line)
            parts = (found.low_slope, found.low_intercept, found.high_slope, found.high_intercept)
            return Linear(Lines(*(part[:, None] for part in parts)), line)
        case MaxPool():
            candidates = pool_candidates(node.op, shapes[0], view.device)
            return Chosen([select(candidates, *join(inputs), 1)], shapes)
        case Extremum():
            candidates = stacked_candidates(len(inputs), node.size, view.device)
            return Chosen([select(candidates, *join(inputs), 1 if node.op.maximum else -1)], shapes)
        case Sort() if node.shape[-1] == 2:
            pairs = torch.arange(node.size, device=view.device).reshape(-1, 2).T
            return Chosen([select(pairs, *join(inputs), sign) for sign in (-1, 1)], shapes)
        case _:
            return Constant(*output)


def _contract(a: Tensor, values: Tensor) -> Tensor:
    """Return (B, S) sums of products of (B, S, *shape) with (B, S or 1, *shape)."""
    if values.shape[1] == 1:
        return products(a, values[:, 0])
    return (a * values).flatten(2).sum(dim=2)
