r"""Where lines of a given slope touch an activation: the best intercepts in closed form.

On a box [l, u] the least value of f(x) - s x is at l, at u, at a kink or where f'(x) = s. For many activations the
last points have a closed form (`Curve.meets`): then the highest line of slope s below f, and the lowest above it, are
known without cutting the box into cells. Points that are no such place do no harm: f is only looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from lipcert.bounds.local.curves import Curve
from lipcert.bounds.torch_activations import Function


class Bent(Protocol):
    """What is needed of an activation node; see `lines.Shape`."""

    @property
    def function(self) -> Function:
        """The activation in torch."""

    @property
    def curve(self) -> Curve:
        """Its bends."""

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """Tensors broadcastable to the node."""


def intercepts(shape: Bent, low: Tensor, high: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest intercepts of lines below, and the smallest of lines above, an activation.

    Args:
        shape: the activation; its curve has `meets`.
        low, high: (B, *shape) boxes.
        slope: (B, *shape), or broadcastable; gradients reach it, as if the points of contact did not move: they are
            extrema, so moving them changes nothing in first order.
    """
    least, most = None, None
    for point in _points(shape, low, high, slope.detach()):
        gap = shape.function(point, *shape.parameters) - slope * point
        least = gap if least is None else torch.minimum(least, gap)
        most = gap if most is None else torch.maximum(most, gap)
    assert least is not None and most is not None
    return least, most


@torch.no_grad()
def _points(shape: Bent, low: Tensor, high: Tensor, slope: Tensor) -> Iterator[Tensor]:
    """Yield all points of the boxes where f - s x may be extreme."""
    assert shape.curve.meets is not None
    yield low
    yield high
    for point in (*shape.curve.kinks(*shape.parameters), *shape.curve.meets(slope, *shape.parameters)):
        yield torch.minimum(torch.maximum(point.to(low), low), high)
