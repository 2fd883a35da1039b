"""The kernel of each operator in torch.

Tensors are batched, so a per-sample axis i is axis i + 1. Each kernel computes the operator at the centres of its
enclosures; affine ones as dot products, whose rounding error `robustness.rounding_model` bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lipcert.bounds.torch_activations import FUNCTIONS, Function
from lipcert.bounds.torch_moves import move_kernel
from lipcert.network.enclosure import Enclosure, Float
from lipcert.network.graph import Node, Shape
from lipcert.network.operators import (
    AvgPool,
    Concat,
    Conv,
    ConvTranspose,
    Dense,
    Elementwise,
    Extremum,
    Gather,
    MaxPool,
    Pads,
    Reshape,
    Scale,
    Softmax,
    Sort,
    Sum,
)

Kernel = Callable[..., Tensor]
Place = Callable[[Float], Tensor]

CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}
_MAX = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}


def missing_kernel(node: Node) -> str | None:
    """Return why torch has no kernel for a node, or None where it has."""
    match node.op:
        case Conv() | ConvTranspose() | MaxPool() | AvgPool():
            return None if len(node.shape) <= 4 else "torch has no kernel for more than three spatial axes"
        case Elementwise():
            return None if node.op.name in FUNCTIONS else "there is no torch function for this activation"
        case _:
            return None


@dataclass(frozen=True)
class Compiler:
    """Makes the kernels of a network.

    Attributes:
        place: brings numbers to the device, in the dtype of the computation.
        device: where index maps go.
        functions: the elementwise activations by name.
        chunk: the longest dot product of a dense layer that is left to one matrix product, or None for any.
    """

    place: Place
    device: torch.device
    functions: Mapping[str, Function]
    chunk: int | None = None

    def kernel(self, node: Node, sources: Sequence[Shape]) -> Kernel:
        """Return the function of batched tensors that computes a node whose inputs have these shapes."""
        op, place = node.op, self.place
        match op:
            case Dense():
                return _dense(op, place, self.chunk)
            case Conv():
                return _conv(op, place)
            case ConvTranspose():
                return _conv_transposed(op, node.shape, place)
            case AvgPool():
                return _avg_pool(op, sources[0], place)
            case Scale():
                return _scale(op, place)
            case Gather():
                return move_kernel(op.index, sources[0], self.device)
            case Reshape():
                return lambda x: x.reshape(len(x), *node.shape)
            case Sum():
                return lambda *xs: _signed_sum(op.signs, xs)
            case Concat():
                return lambda *xs: torch.cat(xs, dim=op.axis + 1)
            case Elementwise():
                parameters = [place(np.asarray(p, dtype=np.float64)) for p in op.params]
                function = self.functions[op.name]
                return lambda x: function(x, *parameters)
            case Sort():
                return _sort_pairs if node.shape[-1] == 2 else lambda x: torch.sort(x, dim=-1).values
            case Extremum():
                return lambda *xs: _extremum(op.maximum, xs)
            case MaxPool():
                return _max_pool(op)
            case Softmax():
                soft = torch.log_softmax if op.log else torch.softmax
                return lambda x: soft(x, dim=op.axis + 1)
        raise TypeError(f"no torch kernel for {op.kind}")


def parts_of(length: int, chunk: int | None) -> tuple[int, int]:
    """Return (count, size) of the parts of about equal size into which a dot product is split."""
    count = 1 if chunk is None else math.ceil(length / chunk)
    return count, math.ceil(length / count)


def _dense(op: Dense, place: Place, chunk: int | None) -> Kernel:
    weight, bias = place(op.weight.mid), place(op.bias.mid)
    inner, outer = (bias, None) if bias.ndim == 1 else (None, bias)
    count, size = parts_of(weight.shape[1], chunk)
    if count == 1:
        return lambda x: _plus(functional.linear(x, weight, inner), outer)
    parts = [part.contiguous() for part in torch.split(weight, size, dim=1)]

    def run(x: Tensor) -> Tensor:
        y = functional.linear(x[..., :size], parts[0], inner)
        for number, part in enumerate(parts[1:], start=1):
            first = number * size
            y = y + functional.linear(x[..., first : first + part.shape[1]], part)
        return _plus(y, outer)

    return run


def _plus(y: Tensor, bias: Tensor | None) -> Tensor:
    return y if bias is None else y + bias


def _channel_bias(bias: Enclosure, channels: int, rank: int) -> Float | None:
    """Return a bias as one number per channel, or None where it varies over the spatial axes."""
    mid = bias.mid
    full = (1,) * (rank + 1 - mid.ndim) + mid.shape
    if any(size != 1 for size in full[1:]):
        return None
    return np.broadcast_to(mid.reshape(-1), (channels,))


def _conv(op: Conv, place: Place) -> Kernel:
    rank = len(op.stride)
    weight, per_channel = place(op.weight.mid), _channel_bias(op.bias, op.weight.shape[0], len(op.stride))
    inner = None if per_channel is None else place(per_channel)
    outer = place(op.bias.mid) if per_channel is None else None
    even = not op.circular and all(a == b >= 0 for a, b in op.padding)
    own = tuple(a for a, _ in op.padding) if even else (0,) * rank
    convolve = CONVOLUTIONS[rank]

    def run(x: Tensor) -> Tensor:
        if not even:
            x = wrap(x, op.padding) if op.circular else pad(x, op.padding)
        y = convolve(x, weight, inner, op.stride, own, op.dilation, op.groups)
        return _plus(y, outer)

    return run


def _conv_transposed(op: ConvTranspose, out: Shape, place: Place) -> Kernel:
    """Compute the full adjoint, then crop it (or append zeros) to the output."""
    weight, bias = place(op.weight.mid), place(op.bias.mid)
    transpose = TRANSPOSED[len(op.stride)]

    def run(x: Tensor) -> Tensor:
        full = transpose(x, weight, None, op.stride, 0, 0, op.groups, op.dilation)
        crop = [(-a, size - (n - a)) for (a, _), size, n in zip(op.padding, out[1:], full.shape[2:], strict=True)]
        return pad(full, crop) + bias

    return run


def _avg_pool(op: AvgPool, source: Shape, place: Place) -> Kernel:
    """Sum each window by a convolution with ones where it is small, by a reduction where it covers everything."""
    counts = place(op.counts)
    whole = op.window == source[1:] and all(side == 0 for pair in op.padding for side in pair)
    if whole:
        axes = tuple(range(2, 2 + len(op.window)))
        return lambda x: x.sum(dim=axes, keepdim=True) / counts
    if len(op.window) == 2:
        return lambda x: functional.avg_pool2d(pad(x, op.padding), op.window, op.stride, divisor_override=1) / counts
    kernel, convolve = place(np.ones((source[0], 1, *op.window))), CONVOLUTIONS[len(op.window)]
    return lambda x: convolve(pad(x, op.padding), kernel, None, op.stride, groups=source[0]) / counts


def _scale(op: Scale, place: Place) -> Kernel:
    factor, shift = place(op.factor.mid), place(op.shift.mid)
    if not op.shift.mid.any():
        return lambda x: x * factor
    if (op.factor.mid == 1).all():
        return lambda x: x + shift
    return lambda x: x * factor + shift


def _max_pool(op: MaxPool) -> Kernel:
    pool = _MAX[len(op.window)]
    padded = any(side != 0 for pair in op.padding for side in pair)

    def run(x: Tensor) -> Tensor:
        x = pad(x, op.padding, -torch.inf) if padded else x
        y: Tensor = pool(x, op.window, op.stride, 0, op.dilation)
        return y

    return run


def pad(x: Tensor, padding: Pads | Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """Pad, or crop where negative, the spatial axes."""
    flat = [side for pair in reversed(padding) for side in pair]  # torch counts from the last axis
    return functional.pad(x, flat, value=value) if any(flat) else x


def wrap(x: Tensor, padding: Pads) -> Tensor:
    """Pad the trailing axes with what stands at their other end."""
    for axis, (before, after) in enumerate(padding, start=2):
        size = x.shape[axis]
        x = x.index_select(axis, torch.arange(-before, size + after, device=x.device) % size)
    return x


def _signed_sum(signs: tuple[int, ...], xs: Sequence[Tensor]) -> Tensor:
    total = xs[0] if signs[0] > 0 else -xs[0]
    for sign, x in zip(signs[1:], xs[1:], strict=True):
        total = total + x if sign > 0 else total - x
    return total


def _sort_pairs(x: Tensor) -> Tensor:
    a, b = x.unbind(dim=-1)
    return torch.stack((torch.minimum(a, b), torch.maximum(a, b)), dim=-1)


def _extremum(maximum: bool, xs: Sequence[Tensor]) -> Tensor:
    pick = torch.maximum if maximum else torch.minimum
    total = xs[0]
    for x in xs[1:]:
        total = pick(total, x)
    return total
