"""Sums and products of branches and constants."""

from __future__ import annotations

from lipcert.network.enclosure import Enclosure
from lipcert.network.operators import Sum
from lipcert.network.readers import common
from lipcert.network.readers.onnx.call import Call
from lipcert.network.readers.onnx.patterns import product, quotient
from lipcert.network.readers.onnx.values import Refusal, Tensor, Value

ONE, ZERO = Enclosure.exact(1.0), Enclosure.exact(0.0)


def add(call: Call) -> Value:
    """Sum of the inputs, constants last."""
    return _signed(call, [1] * len(call.inputs))


def subtract(call: Call) -> Value:
    """Difference of two inputs."""
    return _signed(call, [1, -1])


def mean(call: Call) -> Value:
    """Mean of the inputs."""
    total, count = add(call), Enclosure.exact(float(len(call.inputs)))
    assert isinstance(total, Tensor)
    return scaled(call, total, ONE / count, ZERO)


def _signed(call: Call, signs: list[int]) -> Tensor:
    positions = sorted(range(len(signs)), key=lambda p: not isinstance(call.inputs[p], Tensor))  # data first
    found, sign = call.data(positions[0]), signs[positions[0]]
    for position in positions[1:]:
        value = call.inputs[position]
        if isinstance(value, Tensor):
            found = add_signed(call, found, value, (sign, signs[position]))
        else:
            constant = _old_broadcast(call, position)
            shift = constant if signs[position] == 1 else -constant
            found = scaled(call, found, ONE if sign == 1 else -ONE, shift)
        sign = 1
    return found


def add_signed(call: Call, left: Tensor, right: Tensor, signs: tuple[int, int]) -> Tensor:
    """Append the signed sum of two branches."""
    nodes, batched = call.graph.aligned([left, right], call.name)
    return call.graph.tensor(call.builder.add(Sum(signs), *nodes, name=call.name), batched)


def scaled(call: Call, x: Tensor, factor: Enclosure, shift: Enclosure) -> Tensor:
    """Append factor * x + shift; one of the constants may have axes, and then repeat entries of x."""
    graph = call.graph
    larger, smaller = (factor, shift) if factor.mid.ndim >= shift.mid.ndim else (shift, factor)
    assert smaller.mid.ndim == 0
    node, constant, batched = graph.beside(x, larger)
    pair = (constant, shift) if larger is factor else (factor, constant)
    return graph.tensor(common.scale(call.builder, node, *pair, call.name), batched)


def _old_broadcast(call: Call, position: int) -> Enclosure:
    """Return a constant operand; before version 7 an attribute says with which axis its first axis lines up."""
    constant = call.numbers(position)
    if call.graph.opset >= 7 or not call.flag("broadcast") or call.get("axis") is None:
        return constant
    rank = len(call.graph.shape(call.data(1 - position)))
    trailing = rank - call.axis(0, rank) - constant.mid.ndim
    return constant.reshape(*constant.shape, *(1,) * trailing)


def negate(call: Call) -> Value:
    """-x."""
    return scaled(call, call.data(), -ONE, ZERO)


def multiply(call: Call) -> Value:
    """Product with a constant, or of two branches where it is a known activation."""
    left, right = call.inputs
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return product(call, left, right)
    position = 0 if isinstance(left, Tensor) else 1
    return scaled(call, call.data(position), _old_broadcast(call, 1 - position), ZERO)


def divide(call: Call) -> Value:
    """Quotient by a constant, or of two branches where it is a known activation."""
    left, right = call.inputs
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return quotient(call, left, right)
    if isinstance(right, Tensor):
        raise Refusal("divides by a value that depends on the input, so its slope is not bounded")
    divisor = _old_broadcast(call, 1)
    return scaled(call, call.data(0), divisor.reciprocal(), ZERO)
