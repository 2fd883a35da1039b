"""Constant sub-graphs: integers exactly, real numbers in `Enclosure` arithmetic.

`FOLDS` holds the operators that may be applied where no input depends on the network's input. Weights that the
graph computes (divided by a stored sigma, say) are the real numbers that the expression denotes, enclosed; what
the runtime rounds on the way belongs to the error of the deployed forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from lipcert.network.enclosure import Enclosure
from lipcert.network.readers import onnx_sources as sources
from lipcert.network.readers.onnx_call import Call, Handler
from lipcert.network.readers.onnx_moves import MOVES, move
from lipcert.network.readers.onnx_values import Array, Refusal, Value, Whole


def _add(call: Call) -> Value:
    left, right = _pair(call)
    if isinstance(left, Enclosure) and isinstance(right, Enclosure):
        return left + right
    return _affine(left, right, 1)


def _sub(call: Call) -> Value:
    left, right = _pair(call)
    if isinstance(left, Enclosure) and isinstance(right, Enclosure):
        return left - right
    return _affine(left, right, -1)


def _mul(call: Call) -> Value:
    left, right = _pair(call)
    if isinstance(left, Enclosure) and isinstance(right, Enclosure):
        return left * right
    assert isinstance(left, Whole) and isinstance(right, Whole)
    if left.slope is not None:
        left, right = right, left
    factor = left.pure()
    slope = None if right.slope is None else factor * right.slope
    return Whole(np.asarray(factor * right.constant), slope)


def _div(call: Call) -> Value:
    left, right = _pair(call)
    if isinstance(left, Enclosure) and isinstance(right, Enclosure):
        return left / right
    assert isinstance(left, Whole) and isinstance(right, Whole)
    divisor = right.pure()
    if (divisor == 0).any():
        raise ValueError("integers are divided by zero")
    if left.slope is None:  # ONNX truncates towards zero
        return Whole(np.sign(left.constant) * np.sign(divisor) * (np.abs(left.constant) // np.abs(divisor)))
    if (left.constant % divisor).any() or (left.slope % divisor).any():
        left.pure()
    return Whole(left.constant // divisor, left.slope // divisor)


def _mod(call: Call) -> Value:
    remainder = np.fmod if call.flag("fmod") else np.mod
    return Whole(np.asarray(remainder(call.whole(0).pure(), call.whole(1).pure())))


def _pair(call: Call) -> tuple[Enclosure, Enclosure] | tuple[Whole, Whole]:
    left, right = call.inputs[:2]
    if isinstance(left, Enclosure) and isinstance(right, Enclosure):
        return left, right
    return call.whole(0), call.whole(1)


def _affine(left: Any, right: Any, sign: int) -> Whole:
    zero = np.zeros_like
    slopes = [zero(w.constant) if w.slope is None else w.slope for w in (left, right)]
    return Whole(np.asarray(left.constant + sign * right.constant), np.asarray(slopes[0] + sign * slopes[1]))


def _neg(call: Call) -> Value:
    return -call.numbers(0) if isinstance(call.inputs[0], Enclosure) else call.whole(0).map(np.negative)


def _pow(call: Call) -> Value:
    base, exponent = call.numbers(0), call.inputs[1]
    power = call.exact(1) if isinstance(exponent, Enclosure) else call.whole(1).pure()
    if power.size != 1 or float(power.reshape(())) not in (-1.0, -0.5, 0.5, 1.0, 2.0, 3.0):
        raise Refusal(f"takes constants to the power {power}; fold constants when exporting")
    match float(power.reshape(())):
        case -1.0:
            return base.reciprocal()
        case -0.5:
            return base.sqrt().reciprocal()
        case 0.5:
            return base.sqrt()
        case 1.0:
            return base
        case 2.0:
            return base * base
        case _:
            return base * base * base


def _gemm(call: Call) -> Value:
    left, right = call.numbers(0), call.numbers(1)
    left = left.map(np.transpose) if call.flag("transA") else left
    right = right.map(np.transpose) if call.flag("transB") else right
    alpha, beta = (Enclosure.exact(call.number(name, 1.0)) for name in ("alpha", "beta"))
    found = (left @ right) * alpha
    return found + call.numbers(2) * beta if call.has(2) else found


def _concat(call: Call) -> Value:
    axis = call.integer("axis", 0)
    if isinstance(call.inputs[0], Enclosure):
        parts = [call.numbers(i) for i in range(len(call.inputs))]
        mids, radii = [p.mid for p in parts], [p.radius for p in parts]
        return Enclosure(np.concatenate(mids, axis), np.concatenate(radii, axis))
    wholes = [call.whole(i) for i in range(len(call.inputs))]
    slopes = [np.zeros_like(w.constant) if w.slope is None else w.slope for w in wholes]
    return Whole(np.concatenate([w.constant for w in wholes], axis), np.concatenate(slopes, axis))


def reduced_axes(call: Call, rank: int) -> list[int]:
    """Return the axes of a reduction, sorted; all of them where none are named and the node says so."""
    axes, stay = call.option("axes", 1), call.flag("noop_with_empty_axes")
    if not axes:
        return [] if stay else list(range(rank))
    return sorted({normalize_axis_index(axis, rank) for axis in axes})


def _sum_over(call: Call, values: Enclosure) -> tuple[Enclosure, int]:
    """Return the sums over the axes of a reduction, and how many entries each adds."""
    axes = reduced_axes(call, values.mid.ndim)
    kept = [axis for axis in range(values.mid.ndim) if axis not in axes]
    count = math.prod(values.shape[a] for a in axes)
    rows = values.map(lambda a: a.transpose(*kept, *axes).reshape(-1, count))
    total = rows @ Enclosure.exact(np.ones((count, 1)))
    if call.flag("keepdims", 1):
        return total.reshape(*(1 if a in axes else s for a, s in enumerate(values.shape))), count
    return total.reshape(*(values.shape[a] for a in kept)), count


def _reduce(finish: Callable[[Enclosure, int], Enclosure], square: bool = False) -> Handler:
    def fold(call: Call) -> Value:
        values = call.numbers(0)
        return finish(*_sum_over(call, values * values if square else values))

    return fold


def _reduce_whole(function: Callable[..., Any]) -> Handler:
    def fold(call: Call) -> Value:
        values = call.whole(0).pure()
        axes = tuple(reduced_axes(call, values.ndim))
        return Whole(np.asarray(function(values, axis=axes, keepdims=call.flag("keepdims", 1))))

    return fold


def _either(whole: Handler, numbers: Handler) -> Handler:
    return lambda call: (whole if isinstance(call.inputs[0], Whole) else numbers)(call)


def _exactly(function: Callable[..., Any]) -> Handler:
    """Fold an operator whose result is exact in float64 (comparisons, rounding to integers, selections)."""

    def fold(call: Call) -> Value:
        arrays = [
            call.whole(i).pure() if isinstance(v, Whole) else call.exact(i) for i, v in enumerate(call.inputs)
        ]
        found: Array = np.asarray(function(*arrays))
        return Enclosure.exact(found) if found.dtype.kind == "f" else Whole(found)

    return fold


def _fold_left(function: Callable[..., Any]) -> Callable[..., Any]:
    def fold(*arrays: Array) -> Any:
        found: Any = arrays[0]
        for array in arrays[1:]:
            found = function(found, array)
        return found

    return fold


_EXACT: Sequence[tuple[str, Callable[..., Any]]] = (
    ("Abs", np.abs),
    ("And", np.logical_and),
    ("Ceil", np.ceil),
    ("Equal", np.equal),
    ("Floor", np.floor),
    ("Greater", np.greater),
    ("GreaterOrEqual", np.greater_equal),
    ("Less", np.less),
    ("LessOrEqual", np.less_equal),
    ("Max", _fold_left(np.maximum)),
    ("Min", _fold_left(np.minimum)),
    ("Not", np.logical_not),
    ("Or", np.logical_or),
    ("Relu", lambda a: np.maximum(a, 0)),
    ("Round", np.round),
    ("Where", np.where),
)

FOLDS: Mapping[str, Handler] = MappingProxyType(
    {
        **dict.fromkeys(MOVES, move),
        **{name: _exactly(function) for name, function in _EXACT},
        "Add": _add,
        "Cast": sources.cast,
        "CastLike": sources.cast,
        "Concat": _concat,
        "Constant": sources.constant,
        "ConstantOfShape": sources.constant_of_shape,
        "Div": _div,
        "Dropout": sources.identity,
        "Gemm": _gemm,
        "Identity": sources.identity,
        "MatMul": lambda call: call.numbers(0) @ call.numbers(1),
        "Mod": _mod,
        "Mul": _mul,
        "Neg": _neg,
        "Pow": _pow,
        "Range": sources.whole_range,
        "Reciprocal": lambda call: call.numbers(0).reciprocal(),
        "ReduceL2": _reduce(lambda total, _: total.sqrt(), square=True),
        "ReduceMax": _reduce_whole(np.max),
        "ReduceMean": _reduce(lambda total, count: total / Enclosure.exact(float(count))),
        "ReduceMin": _reduce_whole(np.min),
        "ReduceProd": _reduce_whole(np.prod),
        "ReduceSum": _either(_reduce_whole(np.sum), _reduce(lambda total, _: total)),
        "ReduceSumSquare": _reduce(lambda total, _: total, square=True),
        "Shape": sources.shape,
        "Size": sources.size,
        "Sqrt": lambda call: call.numbers(0).sqrt(),
        "Sub": _sub,
    }
)
