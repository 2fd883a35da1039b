"""Activations and arithmetic of torch that act entry by entry."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from lipcert.errors import UsageError
from lipcert.network.activations import SELU_ALPHA, SELU_SCALE
from lipcert.network.enclosure import Enclosure
from lipcert.network.operators import Elementwise, Extremum, Scale, Sum
from lipcert.network.readers.common import PRODUCT_REASON, rearrange, scale
from lipcert.network.readers.torch_values import MIXES, Refused, Step, Traced, Value, rounded

ZERO, ONE = Enclosure.exact(0.0), Enclosure.exact(1.0)
QUOTIENT_REASON = "divides by a value that depends on the input: its slope has no global bound"

# --- activations --------------------------------------------------------------------------------------------


def _plain(name: str, *parameters: str) -> Callable[[Step], int]:
    """Return a handler for an activation whose parameters are numbers of the call."""
    return lambda step: step.add(Elementwise(name, tuple(step.scalar(p) for p in parameters)))


def _gelu(step: Step) -> int:
    return step.add(Elementwise("gelu_tanh" if step.get("approximate", "none") == "tanh" else "gelu"))


def _softplus(step: Step) -> int:
    if step.number("threshold") < 20:
        raise Refused("softplus with a threshold below 20 jumps visibly, so it has no slope bound; use 20 or more")
    step.notes.append(
        f"'{step.name}': torch computes softplus as the identity where beta x > threshold; it is read as the smooth "
        "function, which differs from that by at most 2.1e-9 / beta"
    )
    return step.add(Elementwise("softplus", (step.scalar("beta"),)))


def _elu(step: Step) -> int:
    alpha, outer, inner = (step.number(name) for name in ("alpha", "scale", "input_scale"))
    if (alpha, outer, inner) == (SELU_ALPHA, SELU_SCALE, 1.0):
        return step.add(Elementwise("selu"))
    if outer == inner == 1:
        return step.add(Elementwise("elu", (step.scalar("alpha"),)))
    if outer == 1 and inner == 1 / alpha:
        return step.add(Elementwise("celu", (step.scalar("alpha"),)))
    raise Refused(f"elu with scales {outer} and {inner} is not supported; only ELU, SELU and CELU are")


def _clip(low: str, high: str) -> Callable[[Step], int]:
    """Return a handler that clips between two arguments, each of which may be left out."""

    def handler(step: Step) -> int:
        bounds = [_bound(step, low, -math.inf), _bound(step, high, math.inf)]
        if bounds[0].ndim == 0 and bounds[0] == 0 and np.all(bounds[1] == math.inf):
            return step.add(Elementwise("relu"))
        return step.add(Elementwise("clip", tuple(bounds)))

    return handler


def _bound(step: Step, name: str, default: float) -> Any:
    if step.get(name) is None:
        return np.array(default)
    return _exact(_fit(step, step.constant(name)), step)


def _exact(value: Enclosure, step: Step) -> Any:
    """Return the numbers of a constant that parametrises an activation."""
    if not value.is_exact:
        raise Refused("its parameters are computed by the graph and no exact float64; store them in the checkpoint")
    if np.isnan(value.mid).any():
        raise UsageError(f"a parameter of '{step.name}' is NaN; repair or re-export the checkpoint")
    return np.array(value.mid)


def _threshold(step: Step) -> int:
    if step.number("threshold") != step.number("value"):
        raise Refused("a threshold whose value is not its limit jumps, so it has no slope bound")
    return step.add(Elementwise("clip", (step.scalar("threshold"), np.array(math.inf))))


def _relu6(step: Step) -> int:
    return step.add(Elementwise("clip", (np.array(0.0), np.array(6.0))))


def _hardsigmoid(step: Step) -> int:
    """Append relu6(x + 3) / 6."""
    moved = scale(step.builder, step.x, ONE, Enclosure.exact(3.0), f"{step.name}.shift")
    clipped = step.add(Elementwise("clip", (np.array(0.0), np.array(6.0))), moved)
    return scale(step.builder, clipped, Enclosure.exact(6.0).reciprocal(), ZERO, f"{step.name}.scale")


def _prelu(step: Step) -> int:
    """Append PReLU: one slope, or one for each channel (axis 0 without the batch)."""
    slope = _exact(step.constant("weight"), step)
    rank = step.rank(step.x)
    slope = slope.reshape(()) if slope.size == 1 else slope.reshape(-1, *(1,) * (rank - 1))
    return step.add(Elementwise("leaky_relu", (slope,)))


def _rrelu(step: Step) -> int:
    """Append the evaluation form of RReLU: a leaky ReLU with the mean of the two slopes."""
    if step.get("training"):
        raise Refused("draws random slopes in training mode; call model.eval() before exporting")
    mean = Enclosure.exact((step.number("lower") + step.number("upper")) / 2)
    return step.add(Elementwise("leaky_relu", (np.array(rounded(mean, step.dtype).mid),)))


# --- arithmetic ---------------------------------------------------------------------------------------------


def _fit(step: Step, constant: Enclosure) -> Enclosure:
    """Drop the batch axis of a constant, which must be of size 1 where the constant has it."""
    rank = len(step.shape) + 1
    if constant.mid.ndim > rank or (constant.mid.ndim == rank and constant.shape[0] != 1):
        raise Refused(MIXES)
    return constant.reshape(*constant.shape[1:]) if constant.mid.ndim == rank else constant


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
            if _is_tanhshrink(step, pair, left, right, float(alpha)):
                return step.add(Elementwise("tanhshrink"))
            nodes = {name: _operand(step, v) for name, v in zip(signs, pair, strict=True)}
            if alpha != 1:
                nodes[weighted] = scale(step.builder, nodes[weighted], Enclosure.exact(alpha), ZERO)
            return step.add(Sum((left, right)), nodes["self"], nodes["other"])
        moving, still = ("self", "other") if isinstance(pair[0], Traced) else ("other", "self")
        factor = {name: Enclosure.exact(sign * (alpha if name == weighted else 1.0)) for name, sign in signs.items()}
        shift = _fit(step, step.constant(still)) * factor[still]
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
    return scale(step.builder, _operand_kept(step, moving), _fit(step, step.constant(still)), ZERO, step.name)


def _div(step: Step) -> int:
    if step.get("rounding_mode") is not None:
        raise Refused("rounds to integers: a function with jumps has no slope bound")
    if isinstance(step.arguments["other"], Traced):
        if isinstance(step.arguments["self"], Traced) and _is_softsign(step):
            return step.add(Elementwise("softsign"))
        raise Refused(QUOTIENT_REASON)
    factor = _fit(step, step.constant("other")).reciprocal()
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
        limit = _exact(_fit(step, step.constant(still)), step)
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


def _is_tanhshrink(step: Step, pair: list[Value], left: int, right: int, alpha: float) -> bool:
    return (left, right, alpha) == (1, -1, 1.0) and _is_activation(step, pair[1].node, "tanh", pair[0].node)


def _is_softsign(step: Step) -> bool:
    """Whether the quotient is x / (1 + |x|)."""
    below = step.builder.nodes[step.node("other")]
    if not isinstance(below.op, Scale) or below.op.factor.mid.size != 1 or below.op.shift.mid.size != 1:
        return False
    plus_one = below.op.factor.mid == 1 and below.op.shift.mid == 1
    return bool(plus_one) and _is_activation(step, below.inputs[0], "abs", step.node("self"))


_PLAIN = "relu tanh sigmoid silu mish selu softsign abs erf sin cos hardswish tanhshrink".split()

HANDLERS: Mapping[str, Callable[[Step], Value]] = MappingProxyType(
    {
        **{name: _plain(name) for name in _PLAIN},
        "celu": _plain("celu", "alpha"),
        "leaky_relu": _plain("leaky_relu", "negative_slope"),
        "log_sigmoid": _plain("logsigmoid"),
        "softshrink": _plain("softshrink", "lambd"),
        "elu": _elu,
        "gelu": _gelu,
        "hardsigmoid": _hardsigmoid,
        "prelu": _prelu,
        "_prelu_kernel": _prelu,
        "relu6": _relu6,
        "rrelu": _rrelu,
        "softplus": _softplus,
        "threshold": _threshold,
        "clamp": _clip("min", "max"),
        "clip": _clip("min", "max"),
        "clamp_min": _clip("min", "max"),
        "clamp_max": _clip("min", "max"),
        "hardtanh": _clip("min_val", "max_val"),
        "add": _add(1, 1),
        "sub": _add(1, -1),
        "subtract": _add(1, -1),
        "rsub": _add(-1, 1),
        "mul": _mul,
        "multiply": _mul,
        "div": _div,
        "divide": _div,
        "true_divide": _div,
        "neg": _neg,
        "maximum": extremum(True),
        "minimum": extremum(False),
        "fmax": extremum(True),
        "fmin": extremum(False),
    }
)
