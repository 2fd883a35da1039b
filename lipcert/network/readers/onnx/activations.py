"""Activations of ONNX: elementwise functions of one branch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from lipcert.errors import UnsupportedError
from lipcert.network.activations import slope_interval
from lipcert.network.enclosure import Enclosure
from lipcert.network.operators import Elementwise, Scale
from lipcert.network.readers.onnx.call import Call
from lipcert.network.readers.onnx.values import Array, Refusal, Tensor, Value

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
    by_tanh = call.choice("approximate", "none", "tanh") == "tanh"
    return elementwise(call, call.data(), "gelu_tanh" if by_tanh else "gelu")


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
        call.exact(i) if call.has(i) else np.array(call.get(name, default), dtype=np.float64)
        for i, name, default in ((1, "min", -math.inf), (2, "max", math.inf))
    ]
    return clipped(call, call.data(), *(b.reshape(()) for b in bounds))


def clipped(call: Call, x: Tensor, low: Array, high: Array) -> Tensor:
    """Append min(max(x, low), high); bounds without the batch axis."""
    if (low == 0).all() and (high == math.inf).all():
        return elementwise(call, x, "relu")
    return elementwise(call, x, "clip", low, high)
