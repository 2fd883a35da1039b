"""Sums, products, quotients and extrema of torch, entry by entry, and the activations that torch writes with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from lipcert.network.enclosure import Enclosure
from lipcert.network.operators import Elementwise, Extremum, Scale, Sum
from lipcert.network.readers.common import PRODUCT_REASON, rearrange, scale
from lipcert.network.readers.torch.values import MIXES, Refused, Step, Traced, Value

ZERO = Enclosure.exact(0.0)
QUOTIENT_REASON = "divides by a value that depends on the input: its slope has no global bound"


def _operand(step: Step, value: Value) -> int:
    """Return the node of an operand, repeated to the shape of the output."""
    if step.rank(value.node) != len(step.shape):
        raise Refused(MIXES)  # its batch axis would meet another axis
    name = f"{step.name}.expand"
    return rearrange(step.builder, value.node, lambda i: np.broadcast_to(i, step.shape), name)


def _add(left: int, right: int) -> Callable[[Step], int]:
    """Return a handler for left * self + right * alpha * other (the signs the other way for rsub)."""

    def handler(step: Step) -> int:
        signs = {"self": left, "other": right}
        weighted = "self" if step.op == "rsub" else "other"
        alpha = step.scalar("alpha") if step.get("alpha", 1) != 1 else np.array(1.0)
        pair = [step.arguments["self"], step.arguments["other"]]
        if all(isinstance(v, Traced) for v in pair):
            if (left, right, float(alpha)) == (1, -1, 1.0) and _is_activation(step, pair[1].node, "tanh", pair[0].node):
                return step.add(Elementwise("tanhshrink"))
            nodes = {name: _operand(step, v) for name, v in zip(signs, pair, strict=True)}
            if alpha != 1:
                nodes[weighted] = scale(step.builder, nodes[weighted], Enclosure.exact(alpha), ZERO)
            return step.add(Sum((left, right)), nodes["self"], nodes["other"])
        moving, still = ("self", "other") if isinstance(pair[0], Traced) else ("other", "self")
        factor = {name: Enclosure.exact(sign * (alpha if name == weighted else 1.0)) for name, sign in signs.items()}
        shift = step.fitted(still) * factor[still]
        return scale(step.builder, _operand_kept(step, moving), factor[moving], shift, step.name)

    return handler


def _operand_kept(step: Step, name: str) -> int:
    node = step.node(name)
    if step.rank(node) != len(step.shape):
        raise Refused(MIXES)
    return node


def _mul(step: Step) -> int:
    pair = [step.arguments["self"], step.arguments["other"]]
    if all(isinstance(v, Traced) for v in pair):
        gate = _gate(step, pair[0].node, pair[1].node) or _gate(step, pair[1].node, pair[0].node)
        if gate is None:
            raise Refused(PRODUCT_REASON)
        return gate
    moving, still = ("self", "other") if isinstance(pair[0], Traced) else ("other", "self")
    return scale(step.builder, _operand_kept(step, moving), step.fitted(still), ZERO, step.name)


def _div(step: Step) -> int:
    if step.get("rounding_mode") is not None:
        raise Refused("rounds to integers: a function with jumps has no slope bound")
    if isinstance(step.arguments["other"], Traced):
        if isinstance(step.arguments["self"], Traced) and _is_softsign(step):
            return step.add(Elementwise("softsign"))
        raise Refused(QUOTIENT_REASON)
    factor = step.fitted("other").reciprocal()
    return scale(step.builder, _operand_kept(step, "self"), factor, ZERO, step.name)


def _neg(step: Step) -> int:
    return scale(step.builder, step.x, Enclosure.exact(-1.0), ZERO, step.name)


def extremum(maximum: bool) -> Callable[[Step], int]:
    """Return a handler for the larger (or smaller) of two values, one of which may be constant."""

    def handler(step: Step) -> int:
        pair = {name: step.arguments[name] for name in ("self", "other")}
        traced = [name for name, value in pair.items() if isinstance(value, Traced)]
        if len(traced) == 2:
            return step.add(Extremum(maximum), *(_operand(step, value) for value in pair.values()))
        (still,) = set(pair) - set(traced)
        limit = step.parameter(still)
        bounds = (limit, np.array(math.inf)) if maximum else (np.array(-math.inf), limit)
        node = _operand(step, pair[traced[0]])
        if maximum and limit.ndim == 0 and limit == 0:
            return step.add(Elementwise("relu"), node)
        return step.add(Elementwise("clip", bounds), node)

    return handler


# --- activations that torch writes as arithmetic ------------------------------------------------------------


def _is_activation(step: Step, node: int, name: str, of: int) -> bool:
    found = step.builder.nodes[node]
    return isinstance(found.op, Elementwise) and found.op.name == name and found.inputs == (of,)


def _gate(step: Step, x: int, gate: int) -> int | None:
    """Append the activation that x * gate(x) is, where it is a known one."""
    if _is_activation(step, gate, "sigmoid", x):
        return step.add(Elementwise("silu"), x)
    found = step.builder.nodes[gate]
    if isinstance(found.op, Elementwise) and found.op.name == "tanh":
        inner = step.builder.nodes[found.inputs[0]]
        if _is_activation(step, found.inputs[0], "softplus", x) and inner.op.params[0] == 1:  # type: ignore[attr-defined]
            return step.add(Elementwise("mish"), x)
    return None


def _is_softsign(step: Step) -> bool:
    """Whether the quotient is x / (1 + |x|)."""
    below = step.builder.nodes[step.node("other")]
    if not isinstance(below.op, Scale) or below.op.factor.mid.size != 1 or below.op.shift.mid.size != 1:
        return False
    plus_one = below.op.factor.mid == 1 and below.op.shift.mid == 1
    return bool(plus_one) and _is_activation(step, below.inputs[0], "abs", step.node("self"))


HANDLERS: Mapping[str, Callable[[Step], Value]] = MappingProxyType(
    {
        "add": _add(1, 1),
        **dict.fromkeys(("sub", "subtract"), _add(1, -1)),
        "rsub": _add(-1, 1),
        **dict.fromkeys(("mul", "multiply"), _mul),
        **dict.fromkeys(("div", "divide", "true_divide"), _div),
        "neg": _neg,
        **dict.fromkeys(("maximum", "fmax"), extremum(True)),
        **dict.fromkeys(("minimum", "fmin"), extremum(False)),
    }
)
