"""Zonotopes sent forwards (DeepZ), and the margins sent back on the boxes that they find."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from lipcert.bounds.local import crown
from lipcert.bounds.local.intervals import Boxes
from lipcert.bounds.local.method import Bounds, LocalMethod, layer_norms
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.relaxations import Relaxation, relax
from lipcert.bounds.local.tiled import Tiled
from lipcert.bounds.local.view import View
from lipcert.network.operators import Activation
from lipcert.proof.claims import Norm
from lipcert.proof.local import Proposal


class ZonotopeBounds(LocalMethod):
    """CROWN's margins on boxes of zonotopes; see `proof.local.zonotope`."""

    name: ClassVar[str] = "zonotope"
    summary: ClassVar[str] = "affine forms of all neurons sent forwards (DeepZ), margins sent back on their boxes"
    cost: ClassVar[str] = "one forward pass per input and undecided neuron, in small windows"
    rule: ClassVar[str | None] = "local-zonotope/v1"

    def refuses(self, view: View, norm: Norm) -> str | None:
        """Return why the network cannot be served: it computes on a CPU, with operators of `proof.local`."""
        if view.device.type != "cpu":
            return f"it computes on a CPU, not on {view.device.type}"
        if view.steps is None:
            return "an operator has no affine forms"
        return super().refuses(view, norm)

    def at_once(self, view: View) -> int | None:
        """Return how many samples fit the memory at a time; it makes zonotopes of all networks."""
        return None if view.steps is None else view.steps.costs.at_once

    def _bound(self, view: View, ball: Ball, labels: Tensor) -> Bounds:
        norms = layer_norms(view, ball)
        return Bounds(crown.margins(_relaxed(view, ball), labels), lambda samples: Proposal(norms=norms))


def _relaxed(view: View, ball: Ball) -> crown.Relaxed:
    """Return boxes and relaxations of all nodes, every box that matters narrowed by zonotopes. Level: numerical."""
    grown, relaxations = Boxes(view, ball), dict[int, Relaxation]()
    tiled = Tiled(view, ball, grown.found, relaxations)
    for _ in view.nodes[1:]:
        index = grown.grow()
        if isinstance(view.nodes[index].op, Activation):
            relaxations[index] = relax(view, index, grown.inputs(index), grown.found[index])
        if index in view.nonlinear_inputs and not crown.is_tight(view, ball, index):
            grown.narrow(index, *tiled.looked_at(index))
    return crown.Relaxed(view, ball, grown.found, relaxations, torch.zeros_like(ball.valid))
