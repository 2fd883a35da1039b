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
import onnx

from lipcert.network.enclosure import Enclosure
from lipcert.network.readers.onnx_call import Call, Handler, constant_value
from lipcert.network.readers.onnx_moves import MOVES, move
from lipcert.network.readers.onnx_values import Array, Refusal, Tensor, Value, Whole

FLOAT_KINDS = ("float32", "float64", "float16", "bfloat16")


# --- sources ------------------------------------------------------------------------------------------------


def _constant(call: Call) -> Value:
    (name, value), *rest = call.attributes.items()
    if rest or name not in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        raise Refusal("is no dense numeric constant")
    if name == "value":
        return constant_value(onnx.numpy_helper.to_array(value), call.name)
    return constant_value(np.asarray(value, np.float32 if "float" in name else np.int64), call.name)


def _constant_of_shape(call: Call) -> Value:
    shape = [int(s) for s in call.whole(0).pure()]
    stored = call.attributes.get("value")
    value = np.zeros(1, np.float32) if stored is None else onnx.numpy_helper.to_array(stored)
    return constant_value(np.full(shape, value.reshape(())), call.name)


def _range(call: Call) -> Value:
    start, limit, delta = (int(call.whole(i).pure()) for i in range(3))
    return Whole(np.arange(start, limit, delta))


def shape(call: Call) -> Value:
    """The shape of any value; an open batch size stays a symbol."""
    value = call.inputs[0]
    if isinstance(value, Tensor):
        at_zero, at_one = (np.array(call.graph.shape(value, n), dtype=np.int64) for n in (0, 1))
        found = Whole(at_zero, at_one - at_zero)
        if len(call.graph.sizes) < 2:
            found = Whole(found.at(call.graph.sizes[0] if call.graph.sizes else 1))
    else:
        found = Whole(np.array(value.shape if isinstance(value, Enclosure) else call.whole(0).constant.shape))
    start, end = call.integer("start", 0), call.attributes.get("end")
    return found.map(lambda a: a[start:end])


def size(call: Call) -> Value:
    """The number of entries of any value."""
    sizes = shape(call)
    assert isinstance(sizes, Whole)
    if sizes.slope is None:
        return Whole(np.array(math.prod(int(s) for s in sizes.constant)))
    rest = math.prod(int(s) for s in sizes.constant[1:])  # only axis 0 depends on N
    return Whole(np.array(0), np.array(rest))


def identity(call: Call) -> Value:
    """The first input itself."""
    value = call.inputs[0]
    if value is None:
        raise Refusal("has no input")
    return value


def float_kind(call: Call) -> str:
    """Return the numpy name of the type that a Cast goes to; CastLike goes to the only float type of the data."""
    if call.proto.op_type == "Cast":
        return str(onnx.helper.tensor_dtype_to_np_dtype(call.integer("to", 1)).name)
    if isinstance(call.inputs[1], Whole):
        return "int64"
    if len(call.graph.kinds) != 1:
        raise Refusal("casts to one of several float types in the graph")
    return next(iter(call.graph.kinds))


def _cast(call: Call) -> Value:
    value, kind = call.inputs[0], float_kind(call)
    if kind in FLOAT_KINDS:
        return _rounded(Enclosure.exact(value.pure()) if isinstance(value, Whole) else call.numbers(0), kind)
    if kind != "bool" and "int" not in kind:
        raise Refusal(f"casts to {kind}")
    if isinstance(value, Whole):
        return value if kind != "bool" else Whole(value.pure() != 0)
    numbers = np.trunc(call.exact(0))
    return Whole(numbers != 0 if kind == "bool" else numbers.astype(np.int64))


def _rounded(numbers: Enclosure, kind: str) -> Enclosure:
    """Round stored numbers as the runtime does; what it rounds on numbers it computed is not the network's."""
    if kind == "float64" or not numbers.is_exact:
        return numbers
    bfloat16 = onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16)
    with np.errstate(over="ignore"):
        stored = numbers.mid.astype(bfloat16 if kind == "bfloat16" else kind)
    return Enclosure.exact(stored.astype(np.float64))


# --- arithmetic ---------------------------------------------------------------------------------------------


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
    remainder = np.fmod if call.integer("fmod", 0) else np.mod
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
    left = left.map(np.transpose) if call.integer("transA", 0) else left
    right = right.map(np.transpose) if call.integer("transB", 0) else right
    found = (left @ right) * Enclosure.exact(call.number("alpha", 1.0))
    if call.has(2):
        found = found + call.numbers(2) * Enclosure.exact(call.number("beta", 1.0))
    return found


def _concat(call: Call) -> Value:
    axis = call.integer("axis", 0)
    if isinstance(call.inputs[0], Enclosure):
        parts = [call.numbers(i) for i in range(len(call.inputs))]
        mids, radii = (np.concatenate([f(p) for p in parts], axis) for f in (lambda p: p.mid, lambda p: p.radius))
        return Enclosure(mids, radii)
    wholes = [call.whole(i) for i in range(len(call.inputs))]
    slopes = [np.zeros_like(w.constant) if w.slope is None else w.slope for w in wholes]
    return Whole(np.concatenate([w.constant for w in wholes], axis), np.concatenate(slopes, axis))


def reduced_axes(call: Call, rank: int) -> list[int]:
    """Return the axes of a reduction, sorted; all of them where none are named and the node says so."""
    axes = call.option("axes", 1)
    if not axes:
        return [] if call.integer("noop_with_empty_axes", 0) else list(range(rank))
    return sorted({axis % rank for axis in axes})


def _sum_over(call: Call, values: Enclosure) -> tuple[Enclosure, int]:
    """Return the sums over the axes of a reduction, and how many entries each adds."""
    axes = reduced_axes(call, values.mid.ndim)
    kept = [axis for axis in range(values.mid.ndim) if axis not in axes]
    count = math.prod(values.shape[a] for a in axes)
    rows = values.map(lambda a: a.transpose(*kept, *axes).reshape(-1, count))
    total = rows @ Enclosure.exact(np.ones((count, 1)))
    if call.integer("keepdims", 1):
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
        return Whole(np.asarray(function(values, axis=axes, keepdims=bool(call.integer("keepdims", 1)))))

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
        **{name: move for name in MOVES},
        **{name: _exactly(function) for name, function in _EXACT},
        "Add": _add,
        "Cast": _cast,
        "CastLike": _cast,
        "Concat": _concat,
        "Constant": _constant,
        "ConstantOfShape": _constant_of_shape,
        "Div": _div,
        "Dropout": identity,
        "Gemm": _gemm,
        "Identity": identity,
        "MatMul": lambda call: call.numbers(0) @ call.numbers(1),
        "Mod": _mod,
        "Mul": _mul,
        "Neg": _neg,
        "Pow": _pow,
        "Range": _range,
        "Reciprocal": lambda call: call.numbers(0).reciprocal(),
        "ReduceL2": _reduce(lambda total, _: total.sqrt(), square=True),
        "ReduceMax": _reduce_whole(np.max),
        "ReduceMean": _reduce(lambda total, count: total / Enclosure.exact(float(count))),
        "ReduceMin": _reduce_whole(np.min),
        "ReduceProd": _reduce_whole(np.prod),
        "ReduceSum": _either(_reduce_whole(np.sum), _reduce(lambda total, _: total)),
        "ReduceSumSquare": _reduce(lambda total, _: total, square=True),
        "Shape": shape,
        "Size": size,
        "Sqrt": lambda call: call.numbers(0).sqrt(),
        "Sub": _sub,
    }
)
