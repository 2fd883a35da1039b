"""Piecewise-linear activations made smooth, so that a search can climb.

The Jacobian of a ReLU network is constant between its kinks, so its norm has no gradient to follow. With softplus
of a small temperature in place of each kink, the slope of a neuron varies near its kink, and the norm rises towards
better regions. The temperature is relative to the size of each sample's pre-activations. Only the search uses this.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from lipcert.bounds.torch_activations import FUNCTIONS, Function


class Smoother:
    """Activations with smoothed kinks.

    Attributes:
        temperature: (N,) one temperature for each sample of the batch; set it before each pass.
    """

    def __init__(self) -> None:
        self.temperature = torch.ones(1)

    def functions(self) -> Mapping[str, Function]:
        """Return the table of activations, the kinked ones smoothed."""
        return {
            **FUNCTIONS,
            "relu": self._relu,
            "leaky_relu": lambda x, slope: slope * x + (1.0 - slope) * self._relu(x),
            "abs": lambda x: 2.0 * self._relu(x) - x,
            "clip": self._clip,
        }

    def _relu(self, x: Tensor) -> Tensor:
        size = x.detach().flatten(1).square().mean(dim=1).sqrt()
        width = (self.temperature * size).reshape(-1, *(1,) * (x.ndim - 1)) + torch.finfo(x.dtype).tiny
        return width * functional.softplus(x / width)

    def _clip(self, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
        above = low + self._relu(x - low) if bool(torch.isfinite(low).all()) else x
        return above - self._relu(x - high) if bool(torch.isfinite(high).all()) else above
