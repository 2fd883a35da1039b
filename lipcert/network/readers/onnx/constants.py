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
from lipcert.network.readers.onnx import arithmetic, sources
from lipcert.network.readers.onnx.call import Call, Handler
from lipcert.network.readers.onnx.moves import MOVES, move
from lipcert.network.readers.onnx.values import Array, Value, Whole


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
        arrays = [call.whole(i).pure() if isinstance(v, Whole) else call.exact(i) for i, v in enumerate(call.inputs)]
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


def _computed(handler: Handler) -> Handler:
    """Mark numbers that float32 cannot hold as computed: the deployed pass may round them more than once.

    A radius of 2^-1074 says that they are no stored weights (`Network.is_exact`), and costs nothing.
    """

    def fold(call: Call) -> Value | list[Value]:
        value = handler(call)
        if not isinstance(value, Enclosure) or not value.is_exact or call.graph.kinds == {"float64"}:
            return value
        with np.errstate(over="ignore"):
            held = np.array_equal(value.mid.astype(np.float32), value.mid)
        return value if held else Enclosure(value.mid, np.full(value.shape, 2.0**-1074))

    return fold


_ARITHMETIC: Mapping[str, Handler] = {
    "Add": arithmetic.add,
    "Div": arithmetic.divide,
    "Gemm": arithmetic.gemm,
    "MatMul": lambda call: call.numbers(0) @ call.numbers(1),
    "Mul": arithmetic.multiply,
    "Pow": arithmetic.power,
    "Reciprocal": lambda call: call.numbers(0).reciprocal(),
    "ReduceL2": _reduce(lambda total, _: total.sqrt(), square=True),
    "ReduceMean": _reduce(lambda total, count: total / Enclosure.exact(float(count))),
    "ReduceSum": _either(_reduce_whole(np.sum), _reduce(lambda total, _: total)),
    "ReduceSumSquare": _reduce(lambda total, _: total, square=True),
    "Sqrt": lambda call: call.numbers(0).sqrt(),
    "Sub": arithmetic.subtract,
}

FOLDS: Mapping[str, Handler] = MappingProxyType(
    {
        **dict.fromkeys(MOVES, move),
        **{name: _exactly(function) for name, function in _EXACT},
        **{name: _computed(handler) for name, handler in _ARITHMETIC.items()},
        "Cast": sources.cast,
        "CastLike": sources.cast,
        "Concat": arithmetic.concat,
        "Constant": sources.constant,
        "ConstantOfShape": sources.constant_of_shape,
        "Dropout": sources.identity,
        "Identity": sources.identity,
        "Mod": arithmetic.modulo,
        "Neg": arithmetic.negate,
        "Range": sources.whole_range,
        "ReduceMax": _reduce_whole(np.max),
        "ReduceMin": _reduce_whole(np.min),
        "ReduceProd": _reduce_whole(np.prod),
        "Shape": sources.shape,
        "Size": sources.size,
    }
)
