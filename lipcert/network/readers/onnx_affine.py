"""Affine operators of ONNX: matrix products, convolutions, batch norm, sums and products with constants."""

from __future__ import annotations

import math

import numpy as np

from lipcert.network.enclosure import Enclosure
from lipcert.network.graph import Shape
from lipcert.network.operators import Conv, ConvTranspose, Dense, Pads, Sum
from lipcert.network.readers import common
from lipcert.network.readers.onnx_call import Call
from lipcert.network.readers.onnx_patterns import product, quotient
from lipcert.network.readers.onnx_values import Graph, Refusal, Tensor, Value

ONE, ZERO = Enclosure.exact(1.0), Enclosure.exact(0.0)


# --- matrix products ----------------------------------------------------------------------------------------


def matmul(call: Call) -> Value:
    """Product with a constant matrix or vector on either side."""
    left, right = call.inputs
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        raise Refusal(common.PRODUCT_REASON)
    if isinstance(left, Tensor):
        weight = _matrix(call.numbers(1), len(call.graph.shape(left)))
        return _dense(call, left, weight.map(np.transpose), None, weight.mid.ndim == 1)
    assert isinstance(right, Tensor)
    weight = _matrix(call.numbers(0), len(call.graph.shape(right)))
    rank = len(call.graph.shape(right))
    if rank == 1:
        return _dense(call, right, weight, None, weight.mid.ndim == 1)
    order = (*range(rank - 2), rank - 1, rank - 2)
    turned = call.graph.moved(right, lambda a, _: a.transpose(order), f"{call.name}.turn")
    found = _dense(call, turned, weight, None, weight.mid.ndim == 1)
    if weight.mid.ndim == 1:
        return found
    return call.graph.moved(found, lambda a, _: a.transpose(order), f"{call.name}.back")


def _matrix(weight: Enclosure, rank: int) -> Enclosure:
    """Return a constant factor as a matrix or vector."""
    if weight.mid.ndim <= 2:
        return weight
    if math.prod(weight.shape[:-2]) != 1 or weight.mid.ndim > rank:
        raise Refusal("multiplies by a stack of matrices; write it as a grouped convolution of kernel size 1")
    return weight.reshape(*weight.shape[-2:])


def _dense(call: Call, x: Tensor, weight: Enclosure, bias: Enclosure | None, vector: bool) -> Tensor:
    """Append a `Dense` on the last axis of the graph's shape; a vector as weight takes the axis away.

    weight: (m, n), or (n,) for a vector. bias: broadcastable to the output, without the batch axis.
    """
    graph = call.graph
    inner = x.batched and len(graph.shape(x)) > 1
    node = x.node if inner else graph.whole(x)
    rows = weight.reshape(1, -1) if vector else weight
    found = call.builder.add(Dense(rows, bias or ZERO), node, name=call.name)
    if vector:
        found = common.reshape(call.builder, found, call.builder.nodes[found].shape[:-1], f"{call.name}.shape")
    return graph.tensor(found, inner)


def gemm(call: Call) -> Value:
    """alpha * A' B' + beta * C with A or B constant; C may be either."""
    left, right = call.inputs[:2]
    alpha, beta = (Enclosure.exact(call.number(name, 1.0)) for name in ("alpha", "beta"))
    turn_left, turn_right = call.integer("transA", 0), call.integer("transB", 0)
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        raise Refusal(common.PRODUCT_REASON)
    if isinstance(left, Tensor):
        weight = call.numbers(1) if turn_right else call.numbers(1).map(np.transpose)
        found = _gemm_data(call, left, weight * alpha, bool(turn_left))
    else:  # Y = A' B', so Y^T = B'^T A'^T: a dense layer with weight A' on the columns of B'
        weight = call.numbers(0).map(np.transpose) if turn_left else call.numbers(0)
        columns = _gemm_data(call, call.data(1), weight * alpha, not turn_right)
        found = call.graph.moved(columns, lambda a, _: a.transpose(), f"{call.name}.back")
    if not call.has(2):
        return found
    third = call.inputs[2]
    if isinstance(third, Tensor):
        scaled = third if beta.mid == 1 else _scaled(call, third, beta, ZERO)
        return add_signed(call, found, scaled, (1, 1))
    return _biased(call, found, call.numbers(2) * beta)


def _gemm_data(call: Call, x: Tensor, weight: Enclosure, turn: bool) -> Tensor:
    if len(call.graph.shape(x)) != 2:
        raise Refusal(f"multiplies data of shape {call.graph.shape(x)}, where a matrix is needed")
    if turn:
        x = call.graph.moved(x, lambda a, _: a.transpose(), f"{call.name}.turn")
    return _dense(call, x, weight, None, False)


def _biased(call: Call, x: Tensor, bias: Enclosure) -> Tensor:
    """Add a bias: into the dense layer that was just made where it fits, as a node of its own elsewhere."""
    graph, last = call.graph, call.builder.nodes[-1]
    if x.node == len(call.builder.nodes) - 1 and isinstance(last.op, Dense):
        _, own, batched = graph.beside(x, bias)
        if batched == x.batched and np.broadcast_shapes(own.shape, last.shape) == last.shape:
            call.builder.nodes.pop()
            return Tensor(call.builder.add(Dense(last.op.weight, own), *last.inputs, name=last.name), x.batched)
    return _scaled(call, x, ONE, bias)


# --- sums and products --------------------------------------------------------------------------------------


def add(call: Call) -> Value:
    """Sum of two or more inputs; constants are added up first."""
    return _signed(call, [1] * len(call.inputs))


def subtract(call: Call) -> Value:
    """Difference of two inputs."""
    return _signed(call, [1, -1])


def mean(call: Call) -> Value:
    """Mean of the inputs."""
    total, count = add(call), Enclosure.exact(float(len(call.inputs)))
    assert isinstance(total, Tensor)
    return _scaled(call, total, ONE / count, ZERO)


def _signed(call: Call, signs: list[int]) -> Tensor:
    found: Tensor | None = None
    sign, shift = 1, ZERO
    for position, own in enumerate(signs):
        value = call.inputs[position]
        if not isinstance(value, Tensor):
            constant = _old_broadcast(call, position)
            shift = shift + (constant if own == 1 else -constant)
        elif found is None:
            found, sign = value, own
        else:
            found, sign = add_signed(call, found, value, (sign, own)), 1
    assert found is not None
    if sign == 1 and shift is ZERO:
        return found
    return _scaled(call, found, ONE if sign == 1 else -ONE, shift)


def add_signed(call: Call, left: Tensor, right: Tensor, signs: tuple[int, int]) -> Tensor:
    """Append the signed sum of two branches."""
    nodes, batched = call.graph.aligned([left, right], call.name)
    return call.graph.tensor(call.builder.add(Sum(signs), *nodes, name=call.name), batched)


def _scaled(call: Call, x: Tensor, factor: Enclosure, shift: Enclosure) -> Tensor:
    """Append factor * x + shift, where the larger of the constants may repeat entries of x."""
    graph: Graph = call.graph
    larger, smaller = (factor, shift) if factor.mid.ndim >= shift.mid.ndim else (shift, factor)
    assert smaller.mid.ndim == 0
    node, constant, batched = graph.beside(x, larger)
    pair = (constant, shift) if larger is factor else (factor, constant)
    return graph.tensor(common.scale(call.builder, node, *pair, call.name), batched)


def _old_broadcast(call: Call, position: int) -> Enclosure:
    """Return a constant operand; before version 7 an attribute says with which axis its first axis lines up."""
    constant = call.numbers(position)
    if call.graph.opset >= 7 or "axis" not in call.attributes:
        return constant
    other = call.inputs[1 - position]
    assert isinstance(other, Tensor)
    rank = len(call.graph.shape(other))
    trailing = rank - call.integer("axis", 0) % rank - constant.mid.ndim
    return constant.reshape(*constant.shape, *(1,) * trailing)


def negate(call: Call) -> Value:
    """-x."""
    return _scaled(call, call.data(), -ONE, ZERO)


def multiply(call: Call) -> Value:
    """Product with a constant, or of two branches where it is a known activation."""
    left, right = call.inputs
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return product(call, left, right)
    position = 0 if isinstance(left, Tensor) else 1
    return _scaled(call, call.data(position), _old_broadcast(call, 1 - position), ZERO)


def divide(call: Call) -> Value:
    """Quotient by a constant, or of two branches where it is a known activation."""
    left, right = call.inputs
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return quotient(call, left, right)
    if isinstance(right, Tensor):
        raise Refusal("divides by a value that depends on the input, so its slope is not bounded")
    divisor = _old_broadcast(call, 1)
    return _scaled(call, call.data(0), divisor.reciprocal(), ZERO)


# --- convolutions -------------------------------------------------------------------------------------------


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
    return tuple(int(i) for i in call.attributes.get(name, (1,) * rank))


def window_padding(call: Call, size: Shape, window: tuple[Shape, Shape, Shape]) -> Pads:
    """Return the zero padding (before, after) per spatial axis of a window (kernel, stride, dilation)."""
    kernel, stride, dilation = window
    mode = call.text("auto_pad", "NOTSET")
    if mode == "NOTSET":
        pads = [int(p) for p in call.attributes.get("pads", (0,) * 2 * len(kernel))]
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
    extra = tuple(int(i) for i in call.attributes.get("output_padding", (0,) * rank))
    size = call.builder.nodes[node].shape[1:]
    mode = call.text("auto_pad", "NOTSET")
    wanted = call.attributes.get("output_shape")
    if not wanted and mode in ("NOTSET", "VALID"):
        padding = window_padding(call, size, (kernel, stride, dilation))
    else:
        target = wanted or [n * s for n, s in zip(size, stride, strict=True)]
        full = [
            (n - 1) * s + d * (k - 1) + 1 + e
            for n, s, d, k, e in zip(size, stride, dilation, kernel, extra, strict=True)
        ]
        totals = [f - int(t) for f, t in zip(full, target[-rank:], strict=True)]
        if min(totals) < 0:
            raise Refusal(f"asks for a larger output than the kernel reaches ({target} of {full})")
        padding = tuple(_halves(total, "SAME_UPPER" if mode == "SAME_UPPER" else "SAME_LOWER") for total in totals)
    bias = _channel_bias(call, rank)
    op = ConvTranspose(weight, bias, stride, padding, extra, dilation, call.integer("group", 1))
    return Tensor(call.builder.add(op, node, name=call.name), True)


def batch_norm(call: Call) -> Value:
    """Batch norm in evaluation mode."""
    if call.integer("training_mode", 0) or (call.graph.opset < 7 and not call.integer("is_test", 0)):
        raise Refusal("runs in training mode, with the statistics of the batch; export the model in evaluation mode")
    if not call.integer("spatial", 1):
        raise Refusal("normalises every entry by itself (spatial=0); re-export with a newer operator set")
    gamma, beta, mean_, variance = (call.numbers(i) for i in range(1, 5))
    eps = call.number("epsilon", 1e-5)
    node = common.batch_norm(call.builder, call.sample(), (gamma, beta), (mean_, variance), eps, call.name)
    return Tensor(node, True)
