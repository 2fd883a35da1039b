"""Operators without a slope bound of their own that exporters use as pieces of activations: Pow, Greater, Where.

Each leaves a stand-in (`Refused`), which a pattern may replace; what is left of them is reported.
"""

from __future__ import annotations

import math

from lipcert.network.enclosure import Enclosure
from lipcert.network.operators import Elementwise
from lipcert.network.readers.onnx.call import Call
from lipcert.network.readers.onnx.values import Refusal, Refused, Tensor, Value

STEEP = "has a slope that is not bounded on data"
JUMPS = "jumps, so no slope bounds it"
SOFTPLUS_NOTE = (
    "'{name}': torch computes softplus as the identity above a threshold; it is read as the smooth function, which "
    "differs from that by at most 2.1e-9"
)


def _number(call: Call, position: int) -> float:
    """Return a constant input that is a single number, NaN where it has several."""
    value = call.inputs[position]
    numbers = call.exact(position) if isinstance(value, Enclosure) else call.whole(position).pure()
    return float(numbers.reshape(())) if numbers.size == 1 else math.nan


def _stand_in(call: Call, x: Tensor, op: Refused) -> Tensor:
    return call.graph.refuse(op, (x.node,), call.builder.nodes[x.node].shape, x.batched)


def power(call: Call) -> Value:
    """Squares and cubes of data may be part of a GELU by tanh."""
    x, exponent = call.data(), _number(call, 1)
    if exponent == 1.0:
        return x
    if exponent not in (2.0, 3.0):
        raise Refusal(STEEP)
    return _stand_in(call, x, Refused(call.item(STEEP), "power", exponent))


def greater(call: Call) -> Value:
    """A comparison with a number, on which a softplus of torch depends."""
    if isinstance(call.inputs[1], Tensor):
        raise Refusal(JUMPS)
    return _stand_in(call, call.data(), Refused(call.item(JUMPS), "above", _number(call, 1)))


def where(call: Call) -> Value:
    """Where(x > t, x, softplus(x)) with t of at least 20 is softplus but for a jump below 2.1e-9.

    log(1 + e^t) - t = log(1 + e^-t) <= e^-20. The forward error of a deployed softplus covers that
    (`activations.SOFTPLUS_GAP`).
    """
    choice, identity, smooth = call.inputs
    if not (isinstance(choice, Tensor) and isinstance(identity, Tensor) and isinstance(smooth, Tensor)):
        raise Refusal(JUMPS)
    above, plus = (call.builder.nodes[value.node] for value in (choice, smooth))
    known = isinstance(above.op, Refused) and above.op.role == "above" and above.op.number >= 20.0
    plain = isinstance(plus.op, Elementwise) and plus.op.name == "softplus" and plus.op.params[0] == 1.0
    if not known or not plain or {*above.inputs, *plus.inputs} != {identity.node}:
        raise Refusal(JUMPS)
    call.graph.notes.append(SOFTPLUS_NOTE.format(name=call.name))
    return smooth
