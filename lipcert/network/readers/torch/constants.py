"""Sub-graphs that do not depend on the input, folded in `Enclosure` arithmetic.

Spectral norm (``W / (u' W v)``), weight norm (``g v / |v|``), scale factors and normalisation constants are real
numbers here, enclosed, and never the float32 numbers that torch would round them to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from lipcert.network.enclosure import Enclosure
from lipcert.network.readers.torch.moves import MOVERS, move_constant
from lipcert.network.readers.torch.values import Known, Refused, Step, Value, rounded

Fold = Callable[[Step], Enclosure]
REMEDY = (
    "this computation of constants has no rule; store its result in the checkpoint, for instance with "
    "torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')"
)


def fold(step: Step) -> Value:
    """Return the constant (or the list of constants) that a call with constant arguments gives."""
    if step.op in MOVERS:
        return move_constant(step)
    rule = _FOLDS.get(step.op)
    if rule is None:
        raise Refused(REMEDY)
    return Known(rule(step), step.dtype)


def _cast(step: Step) -> Enclosure:
    return rounded(step.constant(next(iter(step.arguments))), step.dtype)


def _sum(step: Step) -> Enclosure:
    """Add entries along axes: a product with ones, in any order of summation."""
    return _summed(step.constant("self"), step.get("dim"), bool(step.get("keepdim")))


def _summed(value: Enclosure, dims: Any, keep: bool) -> Enclosure:
    rank = value.mid.ndim
    listed = list(range(rank)) if dims is None or dims == [] else np.atleast_1d(dims).tolist()
    gone = [axis % rank for axis in listed] if rank else []
    kept = [axis for axis in range(rank) if axis not in gone]
    rows = value.map(lambda a: a.transpose(*kept, *gone).reshape(int(np.prod([a.shape[k] for k in kept])), -1))
    total = rows @ Enclosure.exact(np.ones((rows.shape[1], 1)))
    shape = [1 if axis in gone else size for axis, size in enumerate(value.shape)] if keep else None
    return total.reshape(*(shape if shape is not None else [value.shape[k] for k in kept]))


def _mean(step: Step) -> Enclosure:
    total = _sum(step)
    count = step.constant("self").mid.size // max(total.mid.size, 1)
    return total / Enclosure.exact(float(count))


def _norm(step: Step) -> Enclosure:
    """Return Euclidean norms along axes."""
    name = next((n for n in ("ord", "p") if step.get(n) is not None), None)
    if name is not None and step.number(name) != 2:
        raise Refused(f"a norm of order {step.number(name)}: {REMEDY}")
    value = step.constant("self")
    return _summed(value * value, step.get("dim"), bool(step.get("keepdim"))).sqrt()


def _weight_norm(step: Step) -> Enclosure:
    """Return v * (g / |v|), the norm taken over all axes but `dim`."""
    v, g, dim = step.constant("v"), step.constant("g"), int(step.get("dim", 0))
    others = None if dim == -1 else [axis for axis in range(v.mid.ndim) if axis != dim % v.mid.ndim]
    return v * (g / _summed(v * v, others, True).sqrt())


def _add(left: float, right: float) -> Fold:
    def rule(step: Step) -> Enclosure:
        weighted = "self" if step.op == "rsub" else "other"
        parts = {"self": step.constant("self"), "other": step.constant("other")}
        if step.get("alpha", 1) != 1:
            parts[weighted] = parts[weighted] * Enclosure.exact(step.scalar("alpha"))
        return parts["self"] * Enclosure.exact(left) + parts["other"] * Enclosure.exact(right)

    return rule


def _div(step: Step) -> Enclosure:
    if step.get("rounding_mode") is not None:
        raise Refused(REMEDY)
    return step.constant("self") / step.constant("other")


def _product(step: Step) -> Enclosure:
    """Matrix and inner products of every rank."""
    left, right = (step.constant(name) for name in list(step.arguments)[:2])
    rows = left.reshape(1, -1) if left.mid.ndim == 1 else left
    columns = right.reshape(-1, 1) if right.mid.ndim == 1 else right
    return (rows @ columns).reshape(*step.shape)


def _power(step: Step) -> Enclosure:
    value, exponent = step.constant("self"), step.number("exponent")
    rules: dict[float, Callable[[], Enclosure]] = {
        1.0: lambda: value,
        2.0: lambda: value * value,
        0.5: value.sqrt,
        -0.5: lambda: value.sqrt().reciprocal(),
        -1.0: value.reciprocal,
    }
    if exponent not in rules:
        raise Refused(f"a power of exponent {exponent}: {REMEDY}")
    return rules[exponent]()


def _clamp(step: Step) -> Enclosure:
    """Clip; it never moves two numbers apart, so the radius stays."""
    low, high = (None if step.get(n) is None else step.constant(n) for n in ("min", "max"))
    value = step.constant("self")
    if any(limit is not None and not limit.is_exact for limit in (low, high)):
        raise Refused(REMEDY)
    mid = np.clip(value.mid, None if low is None else low.mid, None if high is None else high.mid)
    return Enclosure(np.asarray(mid), None if value.rad is None else np.broadcast_to(value.rad, mid.shape).copy())


def _create(step: Step) -> Enclosure:
    """Run an operator that makes numbers from no data: ones, zeros, arange, eye."""
    plain = {name: v for name, v in step.arguments.items() if v is not None and not isinstance(v, Known)}
    likes = [torch.zeros(v.value.shape, dtype=v.dtype) for v in step.arguments.values() if isinstance(v, Known)]
    plain.pop("device", None), plain.pop("pin_memory", None)
    found = step.target(*likes, **plain)
    return Enclosure.exact(found.double().numpy() if found.is_floating_point() else found.numpy())


def _of(apply: Callable[[Enclosure], Enclosure]) -> Fold:
    return lambda step: apply(step.constant("self"))


def _absolute(value: Enclosure) -> Enclosure:
    return Enclosure(np.abs(value.mid), value.rad)


_CREATORS = """
arange eye full full_like ones ones_like scalar_tensor zeros zeros_like new_zeros new_ones new_full
"""
_FOLDS: Mapping[str, Fold] = MappingProxyType(
    {
        **dict.fromkeys(("to", "_to_copy", "type_as"), _cast),
        **dict.fromkeys(_CREATORS.split(), _create),
        **dict.fromkeys(("mv", "mm", "matmul", "dot", "vdot", "bmm", "inner"), _product),
        **dict.fromkeys(("norm", "linalg_vector_norm", "frobenius_norm"), _norm),
        **dict.fromkeys(("clamp", "clamp_min", "clamp_max"), _clamp),
        **dict.fromkeys(("div", "divide", "true_divide"), _div),
        **dict.fromkeys(("_weight_norm", "_weight_norm_interface"), _weight_norm),
        "add": _add(1.0, 1.0),
        "sub": _add(1.0, -1.0),
        "rsub": _add(-1.0, 1.0),
        "mul": lambda step: step.constant("self") * step.constant("other"),
        "neg": _of(lambda value: -value),
        "abs": _of(_absolute),
        "sqrt": _of(Enclosure.sqrt),
        "rsqrt": _of(lambda value: value.sqrt().reciprocal()),
        "reciprocal": _of(Enclosure.reciprocal),
        "square": _of(lambda value: value * value),
        "pow": _power,
        "sum": _sum,
        "mean": _mean,
    }
)
