"""Convolutions, transposed convolutions and batch norm, with constant weights."""

from __future__ import annotations

from lipcert.network.enclosure import Enclosure
from lipcert.network.graph import Shape
from lipcert.network.operators import Conv, ConvTranspose, Pads
from lipcert.network.readers import common
from lipcert.network.readers.onnx.call import Call
from lipcert.network.readers.onnx.values import Refusal, Tensor, Value

ZERO = Enclosure.exact(0.0)


def conv(call: Call) -> Value:
    """Convolution with constant weights, any number of spatial axes."""
    node, weight = call.sample(), call.numbers(1)
    kernel = weight.shape[2:]
    stride, dilation = spatial(call, "strides", len(kernel)), spatial(call, "dilations", len(kernel))
    size = call.builder.nodes[node].shape[1:]
    padding = window_padding(call, size, (kernel, stride, dilation))
    groups = call.integer("group", 1)
    if weight.shape[0] % groups:
        raise ValueError(f"{weight.shape[0]} output channels do not make {groups} groups")
    op = Conv(weight, _channel_bias(call, len(kernel)), stride, padding, dilation, groups)
    return Tensor(call.builder.add(op, node, name=call.name), True)


def spatial(call: Call, name: str, rank: int) -> Shape:
    """Return an attribute with one entry per spatial axis, ones by default."""
    return tuple(int(i) for i in call.get(name, (1,) * rank))


def auto_pad(call: Call) -> str:
    """Return how padding is chosen."""
    return call.choice("auto_pad", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


def window_padding(call: Call, size: Shape, window: tuple[Shape, Shape, Shape]) -> Pads:
    """Return the zero padding (before, after) per spatial axis of a window (kernel, stride, dilation)."""
    kernel, stride, dilation = window
    mode = auto_pad(call)
    pads = [int(p) for p in call.get("pads", (0,) * 2 * len(kernel))]
    if mode == "NOTSET":
        if min(pads) < 0:
            raise Refusal(f"has negative padding {pads}; write it as a slice")
        return tuple(zip(pads[: len(kernel)], pads[len(kernel) :], strict=True))
    if mode == "VALID":
        return ((0, 0),) * len(kernel)
    totals = [  # SAME: as many windows as strides fit, ceil(n / s)
        max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
        for n, k, s, d in zip(size, kernel, stride, dilation, strict=True)
    ]
    return tuple(_halves(total, mode) for total in totals)


def _halves(total: int, mode: str) -> tuple[int, int]:
    """Split padding; SAME_UPPER puts the odd one at the end, SAME_LOWER at the beginning."""
    small = total // 2
    return (small, total - small) if mode == "SAME_UPPER" else (total - small, small)


def _channel_bias(call: Call, rank: int) -> Enclosure:
    return call.numbers(2).reshape(-1, *(1,) * rank) if call.has(2) else ZERO


def conv_transpose(call: Call) -> Value:
    """Transposed convolution with constant weights."""
    node, weight = call.sample(), call.numbers(1)
    kernel = weight.shape[2:]
    rank = len(kernel)
    stride, dilation = spatial(call, "strides", rank), spatial(call, "dilations", rank)
    extra = tuple(int(i) for i in call.get("output_padding", (0,) * rank))
    size = call.builder.nodes[node].shape[1:]
    wanted = call.get("output_shape")
    if wanted or auto_pad(call).startswith("SAME"):
        target = [int(t) for t in wanted or (n * s for n, s in zip(size, stride, strict=True))][-rank:]
        full = [
            (n - 1) * s + d * (k - 1) + 1 + e
            for n, s, d, k, e in zip(size, stride, dilation, kernel, extra, strict=True)
        ]
        padding = _cropping(call, full, target)
    else:
        padding = window_padding(call, size, (kernel, stride, dilation))
    bias = _channel_bias(call, rank)
    op = ConvTranspose(weight, bias, stride, padding, extra, dilation, call.integer("group", 1))
    return Tensor(call.builder.add(op, node, name=call.name), True)


def _cropping(call: Call, full: list[int], target: list[int]) -> Pads:
    """Return what is cropped from the full output of a transposed convolution to leave the target."""
    totals = [f - t for f, t in zip(full, target, strict=True)]
    if any(call.get("pads", ())):
        raise Refusal("gives both pads and the shape of its output")
    if min(totals) < 0:
        raise Refusal(f"asks for a larger output than the kernel reaches ({target} of {full})")
    mode = "SAME_UPPER" if auto_pad(call) == "SAME_UPPER" else "SAME_LOWER"
    return tuple(_halves(total, mode) for total in totals)


def batch_norm(call: Call) -> Value:
    """Batch norm in evaluation mode."""
    if call.flag("training_mode") or (call.graph.opset < 7 and not call.flag("is_test")):
        raise Refusal("runs in training mode, with the statistics of the batch; export the model in evaluation mode")
    if not call.flag("spatial", 1):
        raise Refusal("normalises every entry by itself (spatial=0); re-export with a newer operator set")
    gamma, beta, average, variance = (call.numbers(i) for i in range(1, 5))
    eps = call.number("epsilon", 1e-5)
    node = common.batch_norm(call.builder, call.sample(), (gamma, beta), (average, variance), eps, call.name)
    return Tensor(node, True)
