"""Operators that only move entries: one numpy function each, which serves data, constants and shapes alike.

`MOVES` maps an operator to a function that reads the attributes of a node and returns one `Move` per output. A
move acts on an array of the graph's shape, batch axis included; `Graph.moved` checks what becomes of that axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from lipcert.network.enclosure import Enclosure
from lipcert.network.graph import Shape
from lipcert.network.readers.onnx.call import Call
from lipcert.network.readers.onnx.graph import Graph, Move
from lipcert.network.readers.onnx.resize import resize
from lipcert.network.readers.onnx.values import Array, Refusal, Tensor, Unknown, Value, Whole


def move(call: Call) -> list[Value]:
    """Apply the moves of a node to its first input."""
    value = call.inputs[0]
    return [_apply(call.graph, value, step, call.name) for step in MOVES[call.proto.op_type](call)]


def _apply(graph: Graph, value: Value | None, step: Move, name: str) -> Value:
    match value:
        case Tensor():
            return graph.moved(value, step, name)
        case Enclosure() | Whole():
            return value.map(lambda a: step(a, 1))
        case _:
            return Unknown()


def shape_of(call: Call) -> Shape:
    """Return the graph shape of the first input; an open batch size stands as 2."""
    value = call.inputs[0]
    if isinstance(value, Tensor):
        return call.graph.shape(value, call.graph.sizes[0] if call.graph.tracked else 1)
    return value.shape if isinstance(value, Enclosure) else call.whole(0).constant.shape


def _reshape(call: Call) -> list[Move]:
    target, keep_zero = call.whole(1), call.flag("allowzero")

    def step(a: Array, size: int) -> Any:
        wanted = [int(s) for s in target.at(size)]
        return a.reshape([a.shape[i] if s == 0 and not keep_zero else s for i, s in enumerate(wanted)])

    if not isinstance(call.inputs[0], Tensor):
        target.pure()
    return [step]


def _flatten(call: Call) -> list[Move]:
    axis = call.integer("axis", 1)

    def step(a: Array, _: int) -> Any:
        cut = a.ndim if axis == a.ndim else normalize_axis_index(axis, a.ndim)
        return a.reshape(math.prod(a.shape[:cut]), math.prod(a.shape[cut:]))

    return [step]


def _transpose(call: Call) -> list[Move]:
    order = call.get("perm")
    return [lambda a, _: a.transpose(order)]


def _squeeze(call: Call) -> list[Move]:
    axes = call.option("axes", 1)
    if axes is None and isinstance(call.inputs[0], Tensor) and call.graph.tracked:
        raise Refusal("squeezes every axis of size 1, so a batch of one too; name the axes")
    return [lambda a, _: a.squeeze(None if axes is None else tuple(axes))]


def _unsqueeze(call: Call) -> list[Move]:
    axes = call.option("axes", 1)
    if axes is None:
        raise Refusal("names no axes")
    return [lambda a, _: np.expand_dims(a, tuple(axes))]


def _slice(call: Call) -> list[Move]:
    starts, ends = call.option("starts", 1), call.option("ends", 2)
    if starts is None or ends is None:
        raise Refusal("has no starts or no ends")
    axes = call.option("axes", 3) or list(range(len(starts)))
    steps = call.option("steps", 4) or [1] * len(starts)

    def step(a: Array, _: int) -> Any:
        for start, end, axis, by in zip(starts, ends, axes, steps, strict=True):
            a = np.take(a, slice_range(start, end, by, a.shape[axis]), axis=axis)
        return a

    return [step]


def slice_range(start: int, end: int, step: int, size: int) -> range:
    """Return the positions of an ONNX slice: negative numbers count from the end, then both ends are clamped."""
    start, end = (place + size if place < 0 else place for place in (start, end))
    low, high = (0, size) if step > 0 else (-1, size - 1)
    return range(min(max(start, 0), high), min(max(end, low), high), step)


def _gather(call: Call) -> list[Move]:
    index, axis = call.whole(1).pure(), call.integer("axis", 0)
    return [lambda a, _: np.take(a, index, axis=axis)]


def _split(call: Call) -> list[Move]:
    shape, outputs = shape_of(call), int(call.get("num_outputs", len(call.proto.output)))
    axis = call.axis(0, len(shape))
    sizes = call.option("split", 1)
    if sizes is None:
        part = -(-shape[axis] // outputs)  # the last part may be smaller
        sizes = [min(part, shape[axis] - k * part) for k in range(outputs)]
    if sum(sizes) != shape[axis] or min(sizes) < 0 or len(sizes) != outputs:
        raise ValueError(f"parts of sizes {sizes} do not make up an axis of size {shape[axis]}")
    ends = np.cumsum(sizes)
    return [_part(axis, int(end) - size, int(end)) for end, size in zip(ends, sizes, strict=True)]


def _part(axis: int, start: int, end: int) -> Move:
    return lambda a, _: np.take(a, np.arange(start, end), axis=axis)


def _expand(call: Call) -> list[Move]:
    target = call.whole(1)
    if not isinstance(call.inputs[0], Tensor):
        target.pure()
    return [lambda a, n: np.broadcast_to(a, np.broadcast_shapes(a.shape, tuple(int(s) for s in target.at(n))))]


def _tile(call: Call) -> list[Move]:
    repeats = [int(count) for count in call.whole(1).pure()]
    return [lambda a, _: np.tile(a, repeats)]


def _depth_to_space(call: Call) -> list[Move]:
    b, columns_first = call.integer("blocksize", 1), call.choice("mode", "DCR", "CRD") == "CRD"

    def step(a: Array, _: int) -> Any:
        n, c, h, w = a.shape
        if columns_first:
            blocks = a.reshape(n, c // b**2, b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
        else:
            blocks = a.reshape(n, b, b, c // b**2, h, w).transpose(0, 3, 4, 1, 5, 2)
        return blocks.reshape(n, c // b**2, h * b, w * b)

    return [step]


def _space_to_depth(call: Call) -> list[Move]:
    b = call.integer("blocksize", 1)
    order = (0, 1, 3, 5, 2, 4) if call.choice("mode", "DCR", "CRD") == "CRD" else (0, 3, 5, 1, 2, 4)

    def step(a: Array, _: int) -> Any:
        n, c, h, w = a.shape
        blocks = a.reshape(n, c, h // b, b, w // b, b).transpose(order)
        return blocks.reshape(n, c * b**2, h // b, w // b)

    return [step]


MOVES: Mapping[str, Callable[[Call], list[Move]]] = MappingProxyType(
    {
        "Reshape": _reshape,
        "Flatten": _flatten,
        "Transpose": _transpose,
        "Squeeze": _squeeze,
        "Unsqueeze": _unsqueeze,
        "Slice": _slice,
        "Gather": _gather,
        "Split": _split,
        "Expand": _expand,
        "Tile": _tile,
        "DepthToSpace": _depth_to_space,
        "SpaceToDepth": _space_to_depth,
        "Resize": resize,
        "Upsample": resize,
    }
)
