r"""Activations that exporters write as several nodes: SiLU, GELU, Mish, hard-swish, softsign.

A product of two branches p and g is looked at where it is multiplied: if g is an activation of p, the product may
be a known function of p alone. The constants of the file are kept, whatever they are: for any c != 0

    x * sigmoid(c x)               = silu(c x) / c
    x * (1 + tanh(c x))            = silu(2 c x) / c                 since 1 + tanh z = 2 sigmoid(2 z)
    x * (1 + erf(c x))             = 2 gelu(s x) / s,                s = c sqrt 2
    x * tanh(softplus(c x))        = mish(c x) / c
    x * clip(c x + H/2, 0, H)      = H hardswish(s x) / s,           s = 6 c / H
    x / (h + f |c x|)              = softsign(s x) / (h s),          s = f |c| / h

so that 0.70710677 in place of 1 / sqrt 2 is a `Scale` (an enclosure, for s) and not an approximation. The GELU by
tanh, x (1 + tanh(a (x + b x^3))), has two constants, and a Scale absorbs only one: with b rounded to float32 it
is another function than `gelu_tanh`, and refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lipcert.network.builder import Builder
from lipcert.network.enclosure import Enclosure
from lipcert.network.operators import Elementwise, Scale
from lipcert.network.readers import common
from lipcert.network.readers.onnx.call import Call
from lipcert.network.readers.onnx.lines import ONE, ZERO, bare, behind_scales, equal, line_through, polynomial
from lipcert.network.readers.onnx.values import Refusal, Refused, Tensor

TWO = Enclosure.exact(2.0)
PI = Enclosure(np.array(math.pi), np.array(2.0**-52))

# The cubic coefficient of `gelu_tanh`, and how far that of a file may be from it: what rounding to float64 does.
# The slopes of `gelu_tanh` are proved for this whole range.
GELU_TANH_CUBIC = 0.044715
GELU_TANH_SPREAD = 2.0**-50


@dataclass(frozen=True)
class Known:
    """outer * row(inner * x), with row a key of the activation table."""

    row: str
    inner: Enclosure
    outer: Enclosure


def product(call: Call, left: Tensor, right: Tensor) -> Tensor:
    """Append the product of two branches: a known activation, or a stand-in that is reported if it is needed."""
    graph = call.graph
    nodes, batched = graph.aligned([left, right], call.name)
    shape = call.builder.nodes[nodes[0]].shape
    (c, a), (d, b) = (bare(call.builder, node) for node in nodes)
    for x, gate in ((a, b), (b, a)):
        try:
            found = _gated(call.builder, x, gate)
        except Refusal as error:
            return graph.refuse(Refused(call.item(str(error))), (x,), shape, batched)
        if found is not None:
            return graph.tensor(_emit(call, x, found, c * d), batched)
    op = Refused(call.item(common.PRODUCT_REASON), "product")
    return graph.refuse(op, tuple(nodes), shape, batched)


def quotient(call: Call, left: Tensor, right: Tensor) -> Tensor:
    """Append the quotient of two branches: softsign, or a stand-in that is reported if it is needed."""
    graph, builder = call.graph, call.builder
    nodes, batched = graph.aligned([left, right], call.name)
    total, x = bare(builder, nodes[0])
    slope, offset, inside = behind_scales(builder, nodes[1])
    node = builder.nodes[inside]
    size = isinstance(node.op, Elementwise) and node.op.name == "abs"
    line = line_through(builder, node.inputs[0], x) if size else None
    if line is not None and equal(line[1], ZERO) and offset.mid > 0 and slope.mid > 0 and line[0].mid != 0:
        inner = slope * (line[0] if line[0].mid > 0 else -line[0]) / offset
        known = Known("softsign", inner, (offset * inner).reciprocal())
        return graph.tensor(_emit(call, x, known, total), batched)
    why = "divides by a value that depends on the input, so its slope is not bounded"
    return graph.refuse(Refused(call.item(why)), tuple(nodes), builder.nodes[nodes[0]].shape, batched)


def _emit(call: Call, x: int, known: Known, total: Enclosure) -> int:
    builder = call.builder
    if not equal(known.inner, ONE):
        x = builder.add(Scale(known.inner, ZERO), x, name=f"{call.name}.in")
    y = builder.add(Elementwise(known.row), x, name=call.name)
    outer = known.outer * total
    return y if equal(outer, ONE) else builder.add(Scale(outer, ZERO), y, name=f"{call.name}.out")


# --- gates --------------------------------------------------------------------------------------------------


def _gated(builder: Builder, x: int, gate: int) -> Known | None:
    """Return what x * gate is as a function of x, or None where no identity applies."""
    slope, offset, inside = behind_scales(builder, gate)
    node = builder.nodes[inside]
    if not isinstance(node.op, Elementwise) or any(p.size != 1 for p in node.op.params):
        return None
    above = node.inputs[0]
    line = line_through(builder, above, x)
    if line is None:
        return _curved(builder, x, node.op, above, (slope, offset))
    c, d = line
    if node.op.name in ("clip", "hardsigmoid") and equal(offset, ZERO):
        return _hardswish(node.op, c, d, slope)
    if not equal(d, ZERO) or c.mid == 0:
        return None
    if node.op.name == "sigmoid" and equal(offset, ZERO):
        return Known("silu", c, slope / c)
    if node.op.name == "tanh" and equal(slope, offset):
        return Known("silu", TWO * c, slope / c)
    if node.op.name == "erf" and equal(slope, offset):
        s = c * TWO.sqrt()
        return Known("gelu", s, TWO * slope / s)
    return None


def _hardswish(op: Elementwise, c: Enclosure, d: Enclosure, slope: Enclosure) -> Known | None:
    first, second = (Enclosure.exact(float(p.reshape(()))) for p in op.params)
    if op.name == "hardsigmoid":  # clip(first * z + second, 0, 1)
        c, d, low, high = first * c, first * d + second, ZERO, ONE
    else:
        low, high = first, second
    if not equal(low, ZERO) or not equal(TWO * d, high) or not 0 < high.mid < np.inf or c.mid == 0:
        return None
    inner = Enclosure.exact(6.0) * c / high
    return Known("hardswish", inner, slope * high / inner)


def _curved(
    builder: Builder, x: int, op: Elementwise, above: int, outside: tuple[Enclosure, Enclosure]
) -> Known | None:
    """Gates tanh(...) of something that is not linear in x: Mish, and the GELU by tanh."""
    slope, offset = outside
    if op.name != "tanh":
        return None
    inner = builder.nodes[above].op
    if isinstance(inner, Elementwise) and inner.name == "softplus" and np.all(inner.params[0] == 1.0):
        line = line_through(builder, builder.nodes[above].inputs[0], x)
        if line is None or not equal(line[1], ZERO) or line[0].mid == 0 or not equal(offset, ZERO):
            return None
        return Known("mish", line[0], slope / line[0])
    cubic = polynomial(builder, above, x, 12)
    if cubic is None or set(cubic) != {1, 3} or not equal(slope, offset) or cubic[1].mid == 0:
        return None
    root = (TWO / PI).sqrt()
    s = cubic[1] / root  # tanh(root (u + b u^3)) with u = s x
    b = cubic[3] / (s * s * s * root)
    low, high = (GELU_TANH_CUBIC * (1.0 + sign * GELU_TANH_SPREAD) for sign in (-1.0, 1.0))
    if not (low <= np.nextafter(b.mid - b.radius, -np.inf) and np.nextafter(b.mid + b.radius, np.inf) <= high):
        raise Refusal(
            f"is a GELU by tanh with the cubic coefficient {float(b.mid):.10g}, not {GELU_TANH_CUBIC}; "
            "export it as one Gelu node (operator set 20 or newer), or in float64"
        )
    return Known("gelu_tanh", s, TWO * slope / s)
