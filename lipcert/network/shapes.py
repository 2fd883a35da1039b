"""Which output shape an operator has, and whether it fits its inputs at all. Shapes are per sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lipcert.errors import UsageError
from lipcert.network.operators import (
    Affine,
    AvgPool,
    Concat,
    Conv,
    ConvTranspose,
    Dense,
    Elementwise,
    Extremum,
    Gather,
    MaxPool,
    Operator,
    Pads,
    Reshape,
    Scale,
    Softmax,
    Sort,
    Sum,
)

Shape = tuple[int, ...]


def infer_shape(op: Operator, inputs: Sequence[Shape], asked: Shape | None, name: str) -> Shape:
    """Return the output shape of an operator.

    Args:
        op: the operator.
        inputs: shapes of its inputs.
        asked: the shape to give, for a `Reshape`.
        name: name of the node, for the error message.

    Raises:
        UsageError: the inputs do not fit the operator; says which node.
    """
    try:
        return _shape(op, list(inputs), asked)
    except ValueError as error:
        raise UsageError(f"'{name}' ({op.kind}) does not fit its input {list(inputs)}: {error}") from None


def window_shape(size: Shape, window: Shape, stride: Shape, padding: Pads, dilation: Shape) -> Shape:
    """Return how many windows fit along each spatial axis.

    Raises:
        ValueError: none fits, or the settings make no sense.
    """
    _require(all(v >= 1 for v in (*window, *stride, *dilation)), "window, stride and dilation must be positive")
    found = tuple(
        (n + a + b - d * (k - 1) - 1) // s + 1
        for n, k, s, (a, b), d in zip(size, window, stride, padding, dilation, strict=True)
    )
    _require(all(n > 0 for n in found), f"the window {window} is larger than the padded input {size}")
    return found


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _fits(shape: Shape, target: Shape) -> None:
    _require(np.broadcast_shapes(shape, target) == target, f"a constant of shape {shape} does not fit {target}")


def _shape(op: Operator, inputs: list[Shape], asked: Shape | None) -> Shape:
    several = isinstance(op, (Sum, Concat, Extremum))
    _require(len(inputs) >= 1 if several else len(inputs) == 1, f"it cannot take {len(inputs)} inputs")
    first = inputs[0]
    match op:
        case Affine():
            return _affine_shape(op, first, asked)
        case Concat():
            return _concat_shape(op, inputs)
        case MaxPool():
            return _max_pool_shape(op, first)
        case Sum():
            _require(len(op.signs) == len(inputs) and set(op.signs) <= {1, -1}, "it needs a sign, +1 or -1, each")
        case Elementwise():
            for parameter in op.params:
                _fits(parameter.shape, first)
        case Sort():
            _require(len(first) > 0, "it needs an axis to sort")
        case Softmax():
            _require(0 <= op.axis < len(first), f"it has no axis {op.axis}")
    _require(all(s == first for s in inputs), "the inputs differ in shape")
    return first


def _affine_shape(op: Affine, size: Shape, asked: Shape | None) -> Shape:
    match op:
        case Dense():
            _require(op.weight.mid.ndim == 2, "the weight is not a matrix")
            _require(size[-1:] == op.weight.shape[1:], f"the weight takes {op.weight.shape[1]} features")
            found = (*size[:-1], op.weight.shape[0])
            _fits(op.bias.shape, found)
            return found
        case Conv():
            return _conv_shape(op, size)
        case ConvTranspose():
            return _transposed_shape(op, size)
        case AvgPool():
            _require(len(size) == len(op.window) + 1, f"the window has {len(op.window)} spatial axes")
            windows = window_shape(size[1:], op.window, op.stride, op.padding, (1,) * len(op.window))
            _require(op.counts.shape == windows, f"{op.counts.shape} counts do not fit {windows} windows")
            _require(bool((op.counts > 0).all()), "a count is not positive")
            return (size[0], *windows)
        case Gather():
            entries = int(np.prod(size, dtype=np.int64))
            _require(bool(((op.index >= -1) & (op.index < entries)).all()), "an index lies outside the input")
            return op.index.shape
        case Reshape():
            if asked is None:
                raise ValueError("a reshape needs a shape")
            found = tuple(asked)
            _require(np.prod(found) == np.prod(size), f"{np.prod(size)} entries cannot take shape {found}")
            return found
        case Scale():
            found = np.broadcast_shapes(size, op.factor.shape, op.shift.shape)
            _require(found == size, f"the factors of shape {op.factor.shape} enlarge it")
            return found
    raise TypeError(f"no shape rule for {op.kind}")


def _conv_shape(op: Conv, size: Shape) -> Shape:
    outputs, per_group, *kernel = op.weight.shape
    _require(len(size) == len(kernel) + 1, f"the kernel has {len(kernel)} spatial axes")
    _require(size[0] == per_group * op.groups, f"the kernel takes {per_group * op.groups} channels")
    _require(outputs % op.groups == 0, f"{op.groups} groups do not divide {outputs} outputs")
    found = (outputs, *window_shape(size[1:], tuple(kernel), op.stride, op.padding, op.dilation))
    _fits(op.bias.shape, found)
    return found


def _transposed_shape(op: ConvTranspose, size: Shape) -> Shape:
    channels, per_group, *kernel = op.weight.shape
    _require(len(size) == len(kernel) + 1, f"the kernel has {len(kernel)} spatial axes")
    _require(size[0] == channels, f"the kernel takes {channels} channels")
    _require(channels % op.groups == 0, f"{op.groups} groups do not divide {channels} channels")
    _require(min(*kernel, *op.stride, *op.dilation) >= 1, "kernel, stride and dilation must be positive")
    spatial = tuple(
        (n - 1) * s - a - b + d * (k - 1) + extra + 1
        for n, k, s, (a, b), d, extra in zip(
            size[1:], kernel, op.stride, op.padding, op.dilation, op.output_padding, strict=True
        )
    )
    _require(all(n > 0 for n in spatial), "the padding crops everything")
    found = (per_group * op.groups, *spatial)
    _fits(op.bias.shape, found)
    return found


def _max_pool_shape(op: MaxPool, size: Shape) -> Shape:
    _require(len(size) == len(op.window) + 1, f"the window has {len(op.window)} spatial axes")
    windows = window_shape(size[1:], op.window, op.stride, op.padding, op.dilation)
    for n, count, k, s, (before, _), d in zip(
        size[1:], windows, op.window, op.stride, op.padding, op.dilation, strict=True
    ):
        places = s * np.arange(count)[:, None] - before + d * np.arange(k)
        _require(bool(((places >= 0) & (places < n)).any(axis=1).all()), "a window lies in the padding")
    return (size[0], *windows)


def _concat_shape(op: Concat, inputs: list[Shape]) -> Shape:
    first, axis = inputs[0], op.axis
    _require(0 <= axis < len(first), f"it has no axis {axis}")
    rest = [(*s[:axis], *s[axis + 1 :]) for s in inputs]
    _require(
        all(r == rest[0] and len(s) == len(first) for r, s in zip(rest, inputs, strict=True)),
        "the inputs differ outside the axis",
    )
    return (*first[:axis], sum(s[axis] for s in inputs), *first[axis + 1 :])
