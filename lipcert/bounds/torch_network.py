"""The network in torch: batched, differentiable, on torch's fast kernels.

The numbers are the centres of the enclosures, rounded to the dtype asked for. Values computed here are proposals;
what may be concluded from them is up to the rounding model of `robustness.rounding_model`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lipcert.bounds.torch_activations import FUNCTIONS
from lipcert.bounds.torch_moves import move_kernel
from lipcert.errors import Unsupported, UnsupportedError
from lipcert.network.enclosure import Enclosure, Float
from lipcert.network.graph import Network, Node, Shape
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

_CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}
_MAX = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_FAST_MATH = ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE")


class TorchNetwork:
    """A callable (N, *input_shape) -> (N, *output_shape), differentiable by autograd.

    Attributes:
        network: the network that is computed.
        device, dtype: where and in which arithmetic; dtype is torch.float32 or torch.float64.
    """

    def __init__(self, network: Network, device: torch.device, dtype: torch.dtype) -> None:
        self.network, self.device, self.dtype = network, device, dtype
        shapes = [node.shape for node in network.nodes]

        def place(array: Float) -> Tensor:
            return torch.from_numpy(np.array(array)).to(device=device, dtype=dtype)

        with np.errstate(over="ignore"):
            self._kernels = [_kernel(n, [shapes[i] for i in n.inputs], place, device) for n in network.nodes[1:]]
        self._dead_after = _last_uses(network)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the outputs of a batch (N, *input_shape) of the network's dtype and device."""
        value = x
        for _, value in self.walk(x):  # noqa: B007
            pass
        return value

    def walk(self, x: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield (index, value) of every node in order; values are dropped after their last use.

        Run it inside `full_precision` where reduced precision may be switched on.
        """
        values: dict[int, Tensor] = {0: x}
        yield 0, x
        for index, (node, kernel) in enumerate(zip(self.network.nodes[1:], self._kernels, strict=True), start=1):
            values[index] = kernel(*(values[i] for i in node.inputs))
            for dead in self._dead_after[index]:
                del values[dead]
            yield index, values[index]

    def trace(self, x: Tensor) -> list[Tensor]:
        """Return the values of all nodes, in node order."""
        return [value for _, value in self.walk(x)]


def compile_network(
    network: Network, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> TorchNetwork:
    """Return the network as a torch function.

    Args:
        network: any network; numbers are the centres of its enclosures.
        device: a torch device.
        dtype: torch.float32 or torch.float64.

    Raises:
        UnsupportedError: torch has no kernel for an operator (more than three spatial axes); all are listed.
    """
    missing = [Unsupported(n.name, n.op.kind, reason) for n in network.nodes if (reason := _lacks(n)) is not None]
    if missing:
        raise UnsupportedError(missing)
    return TorchNetwork(network, torch.device(device), dtype)


@contextmanager
def full_precision() -> Iterator[None]:
    """Switch TF32, reduced-precision accumulation and convolution by transforms off, and restore them after.

    cuDNN may pick Winograd or FFT convolutions, NNPACK too; both leave the dot-product model of rounding errors.
    oneDNN's convolutions are direct unless they are asked for by another name.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.nnpack.flags(enabled=False), torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def has_full_float32() -> bool:
    """Whether nothing in the environment lets oneDNN replace float32 arithmetic by a shorter one."""
    return all(os.environ.get(name, "STRICT").upper() in ("", "STRICT") for name in _FAST_MATH)


def _last_uses(network: Network) -> list[list[int]]:
    """Return, for each node, the nodes that no later node needs; the output is always kept."""
    dead: list[list[int]] = [[] for _ in network.nodes]
    for index, users in enumerate(network.consumers[:-1]):
        dead[max(users, default=len(network.nodes) - 1)].append(index)
    return dead


def _lacks(node: Node) -> str | None:
    match node.op:
        case Conv() | ConvTranspose() | MaxPool() | AvgPool():
            return None if len(node.shape) <= 4 else "torch has no kernel for more than three spatial axes"
        case Elementwise():
            return None if node.op.name in FUNCTIONS else "there is no torch function for this activation"
        case _:
            return None


def _kernel(node: Node, sources: Sequence[Shape], place: Place, device: torch.device) -> Kernel:
    """Return the function of batched tensors that computes a node."""
    op = node.op
    match op:
        case Dense():
            return _dense(op, place)
        case Conv():
            return _conv(op, place)
        case ConvTranspose():
            return _conv_transposed(op, node.shape, place)
        case AvgPool():
            return _avg_pool(op, sources[0], place)
        case Scale():
            return _scale(op, place)
        case Gather():
            return move_kernel(op.index, sources[0], device)
        case Reshape():
            return lambda x: x.reshape(len(x), *node.shape)
        case Sum():
            return lambda *xs: _signed_sum(op.signs, xs)
        case Concat():
            return lambda *xs: torch.cat(xs, dim=op.axis + 1)
        case Elementwise():
            parameters = [place(np.asarray(p, dtype=np.float64)) for p in op.params]
            return lambda x: FUNCTIONS[op.name](x, *parameters)
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


def _dense(op: Dense, place: Place) -> Kernel:
    weight, bias = place(op.weight.mid), place(op.bias.mid)
    if bias.ndim == 1:
        return lambda x: functional.linear(x, weight, bias)
    return lambda x: functional.linear(x, weight) + bias


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
    convolve = _CONV[rank]

    def run(x: Tensor) -> Tensor:
        if not even:
            x = _wrap(x, op.padding) if op.circular else _pad(x, op.padding)
        y = convolve(x, weight, inner, op.stride, own, op.dilation, op.groups)
        return y if outer is None else y + outer

    return run


def _conv_transposed(op: ConvTranspose, out: Shape, place: Place) -> Kernel:
    """Compute the full adjoint, then crop it (or append zeros) to the output."""
    weight, bias = place(op.weight.mid), place(op.bias.mid)
    transpose = _TRANSPOSED[len(op.stride)]

    def run(x: Tensor) -> Tensor:
        full = transpose(x, weight, None, op.stride, 0, 0, op.groups, op.dilation)
        crop = [(-a, size - (n - a)) for (a, _), size, n in zip(op.padding, out[1:], full.shape[2:], strict=True)]
        return _pad(full, crop) + bias

    return run


def _avg_pool(op: AvgPool, source: Shape, place: Place) -> Kernel:
    """Sum each window by a convolution with ones where it is small, by a reduction where it covers everything."""
    counts = place(op.counts)
    whole = op.window == source[1:] and all(side == 0 for pair in op.padding for side in pair)
    if whole:
        axes = tuple(range(2, 2 + len(op.window)))
        return lambda x: x.sum(dim=axes, keepdim=True) / counts
    if len(op.window) == 2:
        return lambda x: (
            functional.avg_pool2d(_pad(x, op.padding), op.window, op.stride, divisor_override=1) / counts
        )
    kernel, convolve = place(np.ones((source[0], 1, *op.window))), _CONV[len(op.window)]
    return lambda x: convolve(_pad(x, op.padding), kernel, None, op.stride, groups=source[0]) / counts


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
        x = _pad(x, op.padding, -torch.inf) if padded else x
        y: Tensor = pool(x, op.window, op.stride, 0, op.dilation)
        return y

    return run


def _pad(x: Tensor, padding: Pads | Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """Pad, or crop where negative, the spatial axes."""
    flat = [side for pair in reversed(padding) for side in pair]  # torch counts from the last axis
    return functional.pad(x, flat, value=value) if any(flat) else x


def _wrap(x: Tensor, padding: Pads) -> Tensor:
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
