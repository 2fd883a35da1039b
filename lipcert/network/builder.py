"""Building a network node by node, with every shape inferred and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lipcert.errors import UsageError
from lipcert.network.graph import Network, Node, Shape, Source
from lipcert.network.operators import (
    AvgPool,
    Concat,
    Conv,
    ConvTranspose,
    Dense,
    Gather,
    Input,
    MaxPool,
    Operator,
    Reshape,
    Scale,
)


@dataclass
class Builder:
    """Collects nodes; `add` returns the index by which later nodes refer to it.

    Attributes:
        input_shape: per-sample shape of the input.
        nodes: what has been added so far.
    """

    input_shape: Shape
    nodes: list[Node] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.nodes.append(Node("input", Input(), (), tuple(self.input_shape)))

    def add(self, op: Operator, *inputs: int, name: str = "", shape: Shape | None = None) -> int:
        """Append a node and return its index.

        Args:
            op: the operator.
            inputs: indices of earlier nodes.
            name: name for people; a running number is used where empty.
            shape: the output shape; needed for `Reshape` only, checked elsewhere.

        Raises:
            UsageError: shapes do not fit together.
        """
        name = name or f"{op.kind.lower()}{len(self.nodes)}"
        found = infer_shape(op, [self.nodes[i].shape for i in inputs], shape, name)
        if shape is not None and tuple(shape) != found:
            raise UsageError(f"'{name}' ({op.kind}) has shape {found}, where {tuple(shape)} is expected")
        self.nodes.append(Node(name, op, inputs, found))
        return len(self.nodes) - 1

    def build(self, dtype: str = "float32", source: Source | None = None, notes: Sequence[str] = ()) -> Network:
        """Return the network whose output is the node added last, without nodes that do not reach it."""
        return Network(tuple(prune(self.nodes)), dtype, source or Source(), tuple(notes))


def prune(nodes: Sequence[Node], output: int | None = None) -> list[Node]:
    """Return the nodes that the output depends on (the input always), renumbered, output last."""
    output = len(nodes) - 1 if output is None else output
    needed = {0, output}
    for position in range(output, -1, -1):
        if position in needed:
            needed.update(nodes[position].inputs)
    order = sorted(needed)
    place = {old: new for new, old in enumerate(order)}
    return [
        Node(nodes[i].name, nodes[i].op, tuple(place[j] for j in nodes[i].inputs), nodes[i].shape) for i in order
    ]


def infer_shape(op: Operator, inputs: Sequence[Shape], asked: Shape | None, name: str) -> Shape:
    """Return the output shape of an operator.

    Raises:
        UsageError: the inputs do not fit the operator; says which node.
    """
    try:
        return _shape(op, list(inputs), asked)
    except ValueError as error:
        raise UsageError(f"'{name}' ({op.kind}) does not fit its input {list(inputs)}: {error}") from None


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _shape(op: Operator, inputs: list[Shape], asked: Shape | None) -> Shape:
    first = inputs[0]
    match op:
        case Dense():
            _require(first[-1] == op.weight.shape[1], f"the weight takes {op.weight.shape[1]} features")
            found = (*first[:-1], op.weight.shape[0])
            _fits(op.bias.shape, found)
        case Conv():
            _require(
                first[0] == op.weight.shape[1] * op.groups,
                f"the kernel takes {op.weight.shape[1] * op.groups} channels",
            )
            _require(len(first) == op.weight.mid.ndim - 1, f"the kernel has {op.weight.mid.ndim - 2} spatial axes")
            found = (
                op.weight.shape[0],
                *window_shape(first[1:], op.weight.shape[2:], op.stride, op.padding, op.dilation),
            )
            _fits(op.bias.shape, found)
        case ConvTranspose():
            _require(first[0] == op.weight.shape[0], f"the kernel takes {op.weight.shape[0]} channels")
            found = (op.weight.shape[1] * op.groups, *_transposed_shape(op, first[1:]))
            _fits(op.bias.shape, found)
        case AvgPool():
            found = (first[0], *op.counts.shape)
            _require(len(first) == len(op.window) + 1, f"the window has {len(op.window)} spatial axes")
        case MaxPool():
            _require(len(first) == len(op.window) + 1, f"the window has {len(op.window)} spatial axes")
            found = (first[0], *window_shape(first[1:], op.window, op.stride, op.padding, op.dilation))
        case Gather():
            size = int(np.prod(first, dtype=np.int64))
            _require(bool(((op.index >= -1) & (op.index < size)).all()), "an index lies outside the input")
            found = op.index.shape
        case Reshape():
            _require(asked is not None, "a reshape needs a shape")
            assert asked is not None
            found = tuple(asked)
            _require(np.prod(found) == np.prod(first), f"{np.prod(first)} entries cannot take shape {found}")
        case Concat():
            rest = [s[: op.axis] + s[op.axis + 1 :] for s in inputs]
            _require(all(r == rest[0] for r in rest), "the inputs differ outside the axis")
            found = (*first[: op.axis], sum(s[op.axis] for s in inputs), *first[op.axis + 1 :])
        case Scale():
            found = np.broadcast_shapes(first, op.factor.shape, op.shift.shape)
            _require(found == first, f"the factors of shape {op.factor.shape} enlarge it")
        case _:  # sums, activations: all inputs and the output alike
            _require(all(s == first for s in inputs), "the inputs differ in shape")
            found = first
    return found


def _fits(shape: Shape, target: Shape) -> None:
    _require(np.broadcast_shapes(shape, target) == target, f"a constant of shape {shape} does not fit {target}")


def window_shape(
    size: Shape, window: Shape, stride: Shape, padding: Sequence[tuple[int, int]], dilation: Shape
) -> Shape:
    """Return how many windows fit along each spatial axis."""
    found = tuple(
        (n + a + b - d * (k - 1) - 1) // s + 1
        for n, k, s, (a, b), d in zip(size, window, stride, padding, dilation, strict=True)
    )
    _require(all(n > 0 for n in found), f"the window {window} is larger than the padded input {size}")
    return found


def _transposed_shape(op: ConvTranspose, size: Shape) -> Shape:
    return tuple(
        (n - 1) * s - a - b + d * (k - 1) + extra + 1
        for n, k, s, (a, b), d, extra in zip(
            size, op.weight.shape[2:], op.stride, op.padding, op.dilation, op.output_padding, strict=True
        )
    )
