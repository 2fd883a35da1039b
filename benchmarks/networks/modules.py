"""A network as a torch module made of ordinary layers, for tools that read modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lipcert.network import Network
from lipcert.network.graph import Node
from lipcert.network.operators import AvgPool, Conv, Dense, Elementwise, MaxPool, Reshape, Scale, Sum


class Module(nn.Module):
    """A network as a torch module made of the layers that auto_LiRPA knows.

    A normalisation at the start becomes part of the convolution behind it, and of the input, which is shifted: what
    is padded with zeros stays so, and balls stay balls. A scale behind a convolution becomes part of it.

    Args of the constructor:
        network: without softmax at its end.

    Attributes:
        shift: what the input has to be shifted by, broadcastable to it.

    Raises:
        TypeError: this benchmark has no layer for a node.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self._sources = [node.inputs for node in network.nodes]
        shapes = [node.shape for node in network.nodes]
        self.layers = nn.ModuleList(
            _layer(node, [shapes[i] for i in node.inputs]) if k else nn.Identity()
            for k, node in enumerate(network.nodes)
        )
        self.shift = torch.zeros(1)
        for index, node in enumerate(network.nodes):
            if isinstance(node.op, Scale):
                self._fold(network, index, node.op)

    def _fold(self, network: Network, index: int, op: Scale) -> None:
        """Make a scale part of the convolution behind it, at the input, or before it."""
        factor, shift = (torch.from_numpy(np.array(part.mid)) for part in (op.factor, op.shift))
        (user,), (source,) = network.consumers[index], network.nodes[index].inputs
        conv = self.layers[source or user]
        if not isinstance(conv, nn.Conv2d) or conv.groups != 1 or (source and len(network.consumers[source]) > 1):
            raise TypeError("a scale is expected beside a convolution")
        if source:
            conv.weight.mul_(factor.reshape(-1, 1, 1, 1))
            conv.bias.mul_(factor.flatten()).add_(shift.flatten())
        else:
            conv.weight.mul_(factor.reshape(1, -1, 1, 1))
            self.shift = shift / factor

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes) at shifted inputs."""
        values = [x]
        for layer, sources in zip(list(self.layers)[1:], self._sources[1:], strict=True):
            values.append(layer(*(values[i] for i in sources)))
        return values[-1].flatten(1)


class _Call(nn.Module):
    """A function of tensors as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self._function = function

    def forward(self, *xs: Tensor) -> Tensor:
        return self._function(*xs)


def _layer(node: Node, sources: Sequence[tuple[int, ...]]) -> nn.Module:
    """Return the torch layer of a node.

    Raises:
        TypeError: this benchmark needs no such node.
    """
    op = node.op
    match op:
        case Dense():
            dense = nn.Linear(op.weight.shape[1], op.weight.shape[0])
            return _filled(dense, op.weight.mid, np.broadcast_to(op.bias.mid, node.shape))
        case Conv() if all(a == b for a, b in op.padding) and op.bias.mid[0].size == 1:
            (out, inner), kernel, padding = op.weight.shape[:2], op.weight.shape[2:], tuple(a for a, _ in op.padding)
            conv = nn.Conv2d(inner * op.groups, out, kernel, op.stride, padding, op.dilation, op.groups)
            return _filled(conv, op.weight.mid, op.bias.mid.reshape(-1))
        case Scale():  # becomes part of a convolution
            return nn.Identity()
        case Reshape():
            return nn.Flatten() if len(node.shape) == 1 else _Call(lambda x: x.reshape(len(x), *node.shape))
        case Sum() if op.signs == (1, 1):
            return _Call(torch.add)
        case AvgPool() if (op.counts == op.counts.flat[0]).all() and op.window == sources[0][1:]:
            return nn.AvgPool2d(op.window)
        case MaxPool() if all(a == b for a, b in op.padding):
            return nn.MaxPool2d(op.window, op.stride, tuple(a for a, _ in op.padding), op.dilation)
        case Elementwise(name="relu"):
            return nn.ReLU()
        case Elementwise(name="leaky_relu"):
            return nn.LeakyReLU(float(op.params[0]))
        case Elementwise(name="sigmoid"):
            return nn.Sigmoid()
        case Elementwise(name="tanh"):
            return nn.Tanh()
    raise TypeError(f"no torch layer for {op.kind} here")


def _buffer(array: np.ndarray[Any, Any]) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(np.array(array)), requires_grad=False)


def _filled(layer: nn.Linear | nn.Conv2d, weight: np.ndarray[Any, Any], bias: np.ndarray[Any, Any]) -> nn.Module:
    layer.weight, layer.bias = _buffer(weight), _buffer(bias)
    return layer
