"""Where constants of an ONNX graph come from: stored values, shapes, casts."""

from __future__ import annotations

import math

import numpy as np
import onnx

from lipcert.network.enclosure import Enclosure
from lipcert.network.readers.onnx.call import Call, constant_value
from lipcert.network.readers.onnx.values import Refusal, Tensor, Value, Whole

FLOAT_KINDS = ("float32", "float64", "float16", "bfloat16")


def constant(call: Call) -> Value:
    """The value of a Constant node."""
    name, value = next(iter(call.attributes.items()))
    call.get(name)
    if name not in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        raise Refusal("is no dense numeric constant")
    if name == "value":
        return constant_value(onnx.numpy_helper.to_array(value), call.name)
    return constant_value(np.asarray(value, np.float32 if "float" in name else np.int64), call.name)


def constant_of_shape(call: Call) -> Value:
    """One number in a given shape."""
    shape = [int(s) for s in call.whole(0).pure()]
    stored = call.get("value")
    value = np.zeros(1, np.float32) if stored is None else onnx.numpy_helper.to_array(stored)
    return constant_value(np.full(shape, value.reshape(())), call.name)


def whole_range(call: Call) -> Value:
    """Integers from start to limit."""
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
    start, end = call.integer("start", 0), call.get("end")
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


def cast(call: Call) -> Value:
    """Cast constants: integers become numbers, stored numbers are rounded, or cut to integers."""
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
