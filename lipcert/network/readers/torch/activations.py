"""Activations of torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from lipcert.network.activations import SELU_ALPHA, SELU_SCALE
from lipcert.network.enclosure import Enclosure
from lipcert.network.operators import Elementwise
from lipcert.network.readers.common import scale
from lipcert.network.readers.torch.values import Refused, Step, Value, rounded


def _plain(name: str, *parameters: str) -> Callable[[Step], int]:
    """Return a handler for an activation whose parameters are numbers of the call."""
    return lambda step: step.add(Elementwise(name, tuple(step.scalar(p) for p in parameters)))


def _gelu(step: Step) -> int:
    return step.add(Elementwise("gelu_tanh" if step.get("approximate", "none") == "tanh" else "gelu"))


def _softplus(step: Step) -> int:
    if step.number("threshold") < 20:
        raise Refused("softplus with a threshold below 20 jumps visibly, so it has no slope bound; use 20 or more")
    step.notes.append(
        f"'{step.name}': torch computes softplus as the identity where beta x > threshold; it is read as the "
        "smooth function, which differs from that by at most 2.1e-9 / beta"
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
    return step.parameter(name)


def _threshold(step: Step) -> int:
    if step.number("threshold") != step.number("value"):
        raise Refused("a threshold whose value is not its limit jumps, so it has no slope bound")
    return step.add(Elementwise("clip", (step.scalar("threshold"), np.array(math.inf))))


def _relu6(step: Step) -> int:
    return step.add(Elementwise("clip", (np.array(0.0), np.array(6.0))))


def _hardsigmoid(step: Step) -> int:
    """Append relu6(x + 3) / 6."""
    moved = scale(step.builder, step.x, Enclosure.exact(1.0), Enclosure.exact(3.0), f"{step.name}.shift")
    clipped = step.add(Elementwise("clip", (np.array(0.0), np.array(6.0))), moved)
    return scale(step.builder, clipped, Enclosure.exact(6.0).reciprocal(), Enclosure.exact(0.0), f"{step.name}.scale")


def _prelu(step: Step) -> int:
    """Append PReLU: one slope, or one for each channel (axis 0 without the batch)."""
    weight = step.constant("weight")
    trailing = (1,) * (step.rank(step.x) - 1)
    slope = step.exact(weight.reshape() if weight.mid.size == 1 else weight.reshape(-1, *trailing))
    return step.add(Elementwise("leaky_relu", (slope,)))


def _rrelu(step: Step) -> int:
    """Append the evaluation form of RReLU: a leaky ReLU with the mean of the two slopes."""
    if step.get("training"):
        raise Refused("draws random slopes in training mode; call model.eval() before exporting")
    mean = Enclosure.exact((step.number("lower") + step.number("upper")) / 2)
    return step.add(Elementwise("leaky_relu", (np.array(rounded(mean, step.dtype).mid),)))


_PLAIN = "relu tanh sigmoid silu mish selu softsign abs erf sin cos hardswish tanhshrink"
HANDLERS: Mapping[str, Callable[[Step], Value]] = MappingProxyType(
    {
        **{name: _plain(name) for name in _PLAIN.split()},
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
        **dict.fromkeys(("clamp", "clip", "clamp_min", "clamp_max"), _clip("min", "max")),
        "hardtanh": _clip("min_val", "max_val"),
    }
)
