"""Pooling, reductions and padding of ONNX."""

from __future__ import annotations

import math
from typing import Literal

from numpy.lib.array_utils import normalize_axis_tuple

from lipcert.network.enclosure import Enclosure
from lipcert.network.operators import Extremum, Scale
from lipcert.network.readers import common, pooling
from lipcert.network.readers.onnx.call import Call, Handler
from lipcert.network.readers.onnx.constants import reduced_axes
from lipcert.network.readers.onnx.conv import auto_pad, spatial, window_padding
from lipcert.network.readers.onnx.values import Refusal, Tensor, Unknown, Value

How = Literal["mean", "sum", "max", "min"]
MODES: dict[str, common.PadMode] = {
    "constant": "constant",
    "reflect": "reflect",
    "edge": "edge",
    "wrap": "wrap",
}


def _window(call: Call, node: int) -> pooling.Window:
    kernel = tuple(int(k) for k in call.get("kernel_shape"))
    stride, dilation = spatial(call, "strides", len(kernel)), spatial(call, "dilations", len(kernel))
    size = call.builder.nodes[node].shape[1:]
    padding = window_padding(call, size, (kernel, stride, dilation))
    ceil = call.flag("ceil_mode") and auto_pad(call) == "NOTSET"
    return pooling.Window(kernel, stride, padding, dilation, ceil)


def average_pool(call: Call) -> Value:
    """Average pooling."""
    node = call.sample()
    count: Literal["padded", "inside"] = "padded" if call.flag("count_include_pad") else "inside"
    return Tensor(pooling.average_pool(call.builder, node, _window(call, node), count, call.name), True)


def max_pool(call: Call) -> Value | list[Value]:
    """Max pooling; the optional indices are not supported."""
    node = call.sample()
    return [Tensor(pooling.max_pool(call.builder, node, _window(call, node), call.name), True), Unknown()]


def global_pool(how: How) -> Handler:
    """Return the handler that reduces all spatial axes."""

    def handler(call: Call) -> Value:
        rank = len(call.builder.nodes[call.sample()].shape)
        return Tensor(_reduced(call, call.sample(), list(range(1, rank)), how), True)

    return handler


def reduction(how: How) -> Handler:
    """Return the handler that reduces the axes named by the node."""

    def handler(call: Call) -> Value:
        graph, x, keep = call.graph, call.data(), call.flag("keepdims", 1)
        axes = reduced_axes(call, len(graph.shape(x)))
        if not axes:
            return x
        inner = x.batched and 0 not in axes
        node = x.node if inner else graph.whole(x)
        own = [axis - 1 for axis in axes] if inner else axes
        found = _reduced(call, node, own, how)
        if not keep:
            kept = [s for a, s in enumerate(call.builder.nodes[node].shape) if a not in own]
            found = common.reshape(call.builder, found, kept, f"{call.name}.squeeze")
        return graph.tensor(found, inner)

    return handler


def _reduced(call: Call, node: int, axes: list[int], how: How) -> int:
    """Append a reduction over per-sample axes, which keep size 1."""
    builder, shape = call.builder, call.builder.nodes[node].shape
    if how in ("max", "min") and math.prod(shape[a] for a in axes) == 2:
        # the larger of two entries: kept as such, so that MaxMin can be recognised later
        axis = next(a for a in axes if shape[a] == 2)
        halves = [common.select(builder, node, axis, [k], f"{call.name}.part{k}") for k in (0, 1)]
        return builder.add(Extremum(how == "max"), *halves, name=call.name)
    if how != "min":
        return pooling.reduce(builder, node, axes, how, call.name)
    minus, zero = Enclosure.exact(-1.0), Enclosure.exact(0.0)  # min x = -max -x
    turned = builder.add(Scale(minus, zero), node, name=f"{call.name}.minus")
    largest = pooling.reduce(builder, turned, axes, "max", call.name)
    return builder.add(Scale(minus, zero), largest, name=f"{call.name}.back")


def pad(call: Call) -> Value:
    """Padding by a constant or by entries of the input."""
    graph, x = call.graph, call.data()
    rank = len(graph.shape(x))
    pads, mode = call.option("pads", 1), MODES[call.choice("mode", *MODES)]
    if pads is None:
        raise Refusal("has no pads")
    axes = call.option("axes", 3)
    places = range(rank) if axes is None else normalize_axis_tuple(axes, rank)
    widths = [(0, 0)] * rank
    for axis, before, after in zip(places, pads[: len(pads) // 2], pads[len(pads) // 2 :], strict=True):
        widths[axis] = (before, after)
    value = call.number("value", 0.0)
    if call.has(2):
        value = float(call.exact(2).reshape(()))
    inner = x.batched and widths[0] == (0, 0)
    node, own = (x.node, widths[1:]) if inner else (graph.whole(x), widths)
    return graph.tensor(common.pad(call.builder, node, own, mode, value, call.name), inner)
