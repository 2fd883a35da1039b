"""Activations of ONNX, and the operators that take the larger or smaller of values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from lipcert.errors import UnsupportedError
from lipcert.network.activations import slope_interval
from lipcert.network.enclosure import Enclosure
from lipcert.network.operators import Concat, Elementwise, Extremum, Scale, Softmax
from lipcert.network.readers import common
from lipcert.network.readers.onnx_call import Call
from lipcert.network.readers.onnx_patterns import max_min
from lipcert.network.readers.onnx_values import Array, Refusal, Refused, Tensor, Unknown, Value

ONE, ZERO = Enclosure.exact(1.0), Enclosure.exact(0.0)

# operator -> (row of the activation table, its parameters in order: a number, or an attribute with its default)
Parameters = tuple[float | tuple[str, float], ...]
ACTIVATIONS: Mapping[str, tuple[str, Parameters]] = MappingProxyType(
    {
        "Abs": ("abs", ()),
        "Celu": ("celu", (("alpha", 1.0),)),
        "Cos": ("cos", ()),
        "Elu": ("elu", (("alpha", 1.0),)),
        "Erf": ("erf", ()),
        "HardSigmoid": ("hardsigmoid", (("alpha", 0.2), ("beta", 0.5))),
        "HardSwish": ("hardswish", ()),
        "LeakyRelu": ("leaky_relu", (("alpha", 0.01),)),
        "Mish": ("mish", ()),
        "Relu": ("relu", ()),
        "Sigmoid": ("sigmoid", ()),
        "Sin": ("sin", ()),
        "Softplus": ("softplus", (1.0,)),
        "Softsign": ("softsign", ()),
        "Tanh": ("tanh", ()),
    }
)


def activation(call: Call) -> Value:
    """An operator that is a row of the activation table."""
    row, parameters = ACTIVATIONS[call.proto.op_type]
    numbers = [p if isinstance(p, float) else call.number(*p) for p in parameters]
    return elementwise(call, call.data(), row, *numbers)


def elementwise(call: Call, x: Tensor, row: str, *parameters: Any) -> Tensor:
    """Append an activation; parameters broadcast to the node's shape.

    Raises:
        Refusal: its slopes are not bounded for these parameters.
    """
    op = Elementwise(row, tuple(np.asarray(p, dtype=np.float64) for p in parameters))
    shape = call.builder.nodes[x.node].shape
    if np.broadcast_shapes(shape, *(p.shape for p in op.params)) != shape:
        raise ValueError(f"parameters of shapes {[p.shape for p in op.params]} do not fit data of shape {shape}")
    try:
        slope_interval(op, call.name)
    except UnsupportedError as error:
        raise Refusal(error.items[0].why) from None
    return Tensor(call.builder.add(op, x.node, name=call.name), x.batched)


def _scaled(call: Call, x: Tensor, factor: Enclosure, name: str) -> Tensor:
    if factor.is_exact and factor.mid == 1:
        return x
    return Tensor(call.builder.add(Scale(factor, ZERO), x.node, name=name), x.batched)


def selu(call: Call) -> Value:
    """gamma * elu(x; alpha), with the float32 constants of the operator."""
    inside = elementwise(call, call.data(), "elu", call.number("alpha", 1.67326319217681884765625))
    gamma = Enclosure.exact(call.number("gamma", 1.05070102214813232421875))
    return _scaled(call, inside, gamma, f"{call.name}.gamma")


def gelu(call: Call) -> Value:
    """GELU, exact or by tanh."""
    return elementwise(call, call.data(), "gelu_tanh" if call.text("approximate", "none") == "tanh" else "gelu")


def swish(call: Call) -> Value:
    """x * sigmoid(alpha x) = silu(alpha x) / alpha."""
    alpha = Enclosure.exact(call.number("alpha", 1.0))
    if alpha.mid == 0:
        return _scaled(call, call.data(), Enclosure.exact(0.5), call.name)
    inside = elementwise(call, _scaled(call, call.data(), alpha, f"{call.name}.in"), "silu")
    return _scaled(call, inside, alpha.reciprocal(), f"{call.name}.out")


def prelu(call: Call) -> Value:
    """Leaky ReLU with a slope per channel or per entry."""
    slope = Enclosure.exact(call.exact(1))
    if call.graph.opset < 7:  # one slope per channel, without broadcasting
        slope = slope.reshape(-1, *(1,) * (len(call.graph.shape(call.data())) - 2))
    node, slope, batched = call.graph.beside(call.data(), slope)
    return elementwise(call, call.graph.tensor(node, batched), "leaky_relu", slope.mid)


def shrink(call: Call) -> Value:
    """Soft shrink; the hard form jumps."""
    bias, width = call.number("bias", 0.0), call.number("lambd", 0.5)
    if bias != width:
        raise Refusal(f"jumps, since its bias {bias} differs from lambd {width}; only soft shrink is continuous")
    return elementwise(call, call.data(), "softshrink", width)


def clip(call: Call) -> Value:
    """Clip to constant bounds, given as attributes or as inputs."""
    bounds = [
        call.exact(i) if call.has(i) else np.array(call.attributes.get(name, default), dtype=np.float64)
        for i, name, default in ((1, "min", -math.inf), (2, "max", math.inf))
    ]
    return clipped(call, call.data(), *(b.reshape(()) for b in bounds))


def clipped(call: Call, x: Tensor, low: Array, high: Array) -> Tensor:
    """Append min(max(x, low), high); bounds without the batch axis."""
    if (low == 0).all() and (high == math.inf).all():
        return elementwise(call, x, "relu")
    return elementwise(call, x, "clip", low, high)


def maximum(call: Call) -> Value:
    """Largest of several inputs."""
    return _extremum(call, True)


def minimum(call: Call) -> Value:
    """Smallest of several inputs."""
    return _extremum(call, False)


def _extremum(call: Call, largest: bool) -> Tensor:
    graph = call.graph
    tensors = [v for v in call.inputs if isinstance(v, Tensor)]
    bounds = [call.exact(i) for i, v in enumerate(call.inputs) if not isinstance(v, Tensor)]
    found = tensors[0]
    if len(tensors) > 1:
        nodes, batched = graph.aligned(tensors, call.name)
        found = graph.tensor(call.builder.add(Extremum(largest), *nodes, name=call.name), batched)
    for bound in bounds:
        node, own, batched = graph.beside(found, Enclosure.exact(bound))
        shape = np.broadcast_shapes(call.builder.nodes[node].shape, own.shape)
        grown = common.rearrange(
            call.builder, node, lambda i, to=shape: np.broadcast_to(i, to), f"{call.name}.expand"
        )
        ends = (own.mid, np.array(math.inf)) if largest else (np.array(-math.inf), own.mid)
        found = clipped(call, graph.tensor(grown, batched), *ends)
    return found


def softmax(call: Call) -> Value:
    """Softmax or its logarithm; before version 13 over all axes from `axis` on, taken as one."""
    graph, x = call.graph, call.data()
    rank, flattens = len(graph.shape(x)), graph.opset < 13
    axis = call.integer("axis", 1 if flattens else -1) % max(rank, 1)
    inner = x.batched and axis > 0
    node, own = (x.node, axis - 1) if inner else (graph.whole(x), axis)
    shape, log = call.builder.nodes[node].shape, call.proto.op_type == "LogSoftmax"
    if not flattens or own == len(shape) - 1:
        return graph.tensor(call.builder.add(Softmax(own, log), node, name=call.name), inner)
    rows = (math.prod(shape[:own]), math.prod(shape[own:]))
    flat = common.reshape(call.builder, node, rows, f"{call.name}.flat")
    found = call.builder.add(Softmax(1, log), flat, name=call.name)
    return graph.tensor(common.reshape(call.builder, found, shape, f"{call.name}.shape"), inner)


def power(call: Call) -> Value:
    """Powers of data are unbounded in slope, but may be part of a GELU by tanh."""
    exponent = call.exact(1) if isinstance(call.inputs[1], Enclosure) else call.whole(1).pure()
    value = float(exponent.reshape(-1)[0]) if exponent.size == 1 else math.nan
    x = call.data()
    if value == 1.0:
        return x
    why = "takes data to a power, whose slope is not bounded"
    if value not in (2.0, 3.0):
        raise Refusal(why)
    shape = call.builder.nodes[x.node].shape
    return call.graph.refuse(Refused(call.item(why), power=int(value)), (x.node,), shape, x.batched)


def sort(call: Call) -> Value | list[Value]:
    """TopK: the values are the sorted entries of an axis; their indices are not supported."""
    graph, x = call.graph, call.data()
    rank = len(graph.shape(x))
    axis = call.integer("axis", -1) % rank
    inner = x.batched and axis > 0
    node, own = (x.node, axis - 1) if inner else (graph.whole(x), axis)
    (count,) = call.option("k", 1) or (0,)
    if not call.integer("sorted", 1):
        raise Refusal("leaves the order of the entries open (sorted=0)")
    size, largest = call.builder.nodes[node].shape[own], bool(call.integer("largest", 1))
    ordered = common.sort_axis(call.builder, node, own, size, call.name, largest)
    kept = common.select(call.builder, ordered, own, np.arange(count), f"{call.name}.top")
    return [graph.tensor(kept, inner), Unknown()]


def concat(call: Call) -> Value:
    """Concatenation of branches and constants; MaxMin where it is one."""
    graph, tensors = call.graph, [v for v in call.inputs if isinstance(v, Tensor)]
    axis = call.integer("axis", 1) % len(graph.shape(tensors[0]))
    inner = axis > 0 and all(t.batched for t in tensors)
    nodes = []
    for position, value in enumerate(call.inputs):
        if isinstance(value, Tensor):
            nodes.append(value.node if inner else graph.whole(value))
            continue
        numbers = call.numbers(position)
        if inner and numbers.shape[0] != 1 or graph.tracked:
            raise Refusal("joins a constant whose first axis is the batch; fix the batch size to 1 when exporting")
        nodes.append(graph.constant(numbers.reshape(*numbers.shape[1:]) if inner else numbers, call.name))
    own = axis - 1 if inner else axis
    found = max_min(call, nodes, own)
    if found is None:
        found = call.builder.add(Concat(own), *nodes, name=call.name)
    return graph.tensor(found, inner)
