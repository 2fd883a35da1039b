"""What flows along the edges of an ONNX graph while it is read, and how index maps act on it.

Every value is one of three: a `Tensor` that depends on the input (a node of the network being built), an
`Enclosure` of constant real numbers, or a `Whole`: constant integers (shapes, axes), exact for every batch size.

The batch axis. ONNX shapes have one, the network has none. Where the batch size is open, it stays the symbol N,
and integers are kept as ``constant + slope * N``; index maps (reshape, transpose, slice, ...) are tried at N = 2
and N = 3 and must keep the entries of each sample together, in place, on axis 0. Two sizes settle it for all N:
every size along the way is affine in N, and an affine function is known from two points. Where the file fixes
the batch size to 1, or has no batch axis, there is one sample only, and every index map is a map of its entries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from lipcert.errors import Unsupported
from lipcert.network.builder import Builder
from lipcert.network.enclosure import Enclosure
from lipcert.network.graph import Node, Shape
from lipcert.network.operators import Gather, Operator, Scale
from lipcert.network.readers.common import rearrange, reshape

Array = npt.NDArray[Any]
Move = Callable[[Array, int], Any]  # (array of graph shape, batch size) -> array; only moves or repeats entries

MIXES = (
    "mixes the samples of a batch, or moves the batch axis, so no function of one sample is computed; "
    "if only batches of one are meant, export the model with its batch size fixed to 1"
)


class Refusal(Exception):
    """A node that lipcert has no sound rule for; the text says why and what to do."""


@dataclass(frozen=True, eq=False)
class Refused(Operator):
    """Stands in the place of an unsupported node until it is known whether the output needs it.

    A product that turns out to be part of a known activation is replaced with it; whatever is left is reported.

    Attributes:
        item: what to report.
        power: 0, or the exponent where the node is its only input to that power.
        product: whether the node is the product of its two inputs.
    """

    item: Unsupported
    power: int = 0
    product: bool = False


@dataclass(frozen=True, eq=False)
class Tensor:
    """A value that depends on the input.

    Attributes:
        node: its index in the builder.
        batched: whether the graph's shape has a batch axis before the node's shape.
    """

    node: int
    batched: bool


@dataclass(frozen=True, eq=False)
class Whole:
    """Constant integers or booleans: ``constant + slope * N`` for the batch size N.

    Attributes:
        constant: int64 or bool array.
        slope: int64 array of the same shape, or None where nothing depends on the batch size.
    """

    constant: Array
    slope: Array | None = None

    def __post_init__(self) -> None:
        if self.slope is not None and not self.slope.any():
            object.__setattr__(self, "slope", None)

    def at(self, size: int) -> Array:
        """Return the numbers for one batch size."""
        return self.constant if self.slope is None else np.asarray(self.constant + self.slope * size)

    def pure(self) -> Array:
        """Return the numbers, which must not depend on the batch size."""
        if self.slope is not None:
            raise Refusal("uses the batch size as a number; export the model with its batch size fixed to 1")
        return self.constant

    def map(self, move: Callable[[Array], Any]) -> Whole:
        """Apply a function that only moves entries."""
        slope = None if self.slope is None else np.asarray(move(self.slope))
        return Whole(np.asarray(move(self.constant)), slope)


@dataclass(frozen=True, eq=False)
class Unknown:
    """The output of an unsupported node, of unknown shape; what uses it cannot be looked at."""


Value = Tensor | Enclosure | Whole | Unknown


@dataclass
class Graph:
    """The network being built, and how its shapes relate to the graph's.

    Attributes:
        builder: collects the nodes.
        sizes: batch sizes at which index maps are tried: (2, 3) where the size is open, (B,) where it is fixed
            to B, () where there is one sample only.
        opset: version of the default operator set.
        kinds: names of the float types that data take on the way.
        notes: what a person should know.
    """

    builder: Builder
    sizes: tuple[int, ...]
    opset: int
    kinds: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    @property
    def tracked(self) -> bool:
        """Whether axis 0 is a batch axis of more than one sample."""
        return bool(self.sizes)

    def shape(self, value: Tensor, size: int = 1) -> Shape:
        """Return the shape in the graph for a batch size."""
        own = self.builder.nodes[value.node].shape
        return (size, *own) if value.batched else own

    def tensor(self, node: int, batched: bool = True) -> Tensor:
        """Wrap a node. With one sample only, a leading axis of size 1 counts as the batch axis."""
        own = self.builder.nodes[node].shape
        if batched or not own or own[0] != 1:
            return Tensor(node, batched)
        return Tensor(reshape(self.builder, node, own[1:]), True)

    def whole(self, value: Tensor) -> int:
        """Return a node of the full graph shape.

        Raises:
            Refusal: there is a batch axis, which must not take part.
        """
        if value.batched and self.tracked:
            raise Refusal(MIXES)
        return reshape(self.builder, value.node, self.shape(value))

    def moved(self, value: Tensor, move: Move, name: str) -> Tensor:
        """Append an index map.

        Raises:
            Refusal: it does not keep each sample together and in place.
        """
        if self.tracked:
            found = [self._one_sample(value, move, size) for size in self.sizes]
            if any(not np.array_equal(index, found[0]) for index in found):
                raise Refusal(MIXES)
            return Tensor(rearrange(self.builder, value.node, lambda _: found[0], name), True)
        full = self.shape(value)
        index = np.asarray(move(np.arange(np.prod(full, dtype=np.int64)).reshape(full), 1))
        batched = index.ndim > 0 and index.shape[0] == 1
        own = index.reshape(index.shape[1:]) if batched else index
        return Tensor(rearrange(self.builder, value.node, lambda _: own, name), batched)

    def _one_sample(self, value: Tensor, move: Move, size: int) -> Array:
        """Return the index map of the first sample, checked to be the same for all samples of a batch."""
        own = self.builder.nodes[value.node].shape
        count = int(np.prod(own, dtype=np.int64))
        index = np.asarray(move(np.arange(size * count).reshape(size, *own), size))
        if index.ndim == 0 or index.shape[0] != size or (index[0] >= count).any():
            raise Refusal(MIXES)
        steps = np.where(index[0] >= 0, count, 0)
        if any(not np.array_equal(index[k], index[0] + k * steps) for k in range(size)):
            raise Refusal(MIXES)
        return np.asarray(index[0])

    def aligned(self, values: Sequence[Tensor], name: str) -> tuple[list[int], bool]:
        """Return nodes of one shape, repeated by the rules of broadcasting, and whether they are batched."""
        batched = all(v.batched for v in values)
        ranks = {len(self.shape(v)) for v in values}
        if batched and len(ranks) == 1:
            nodes = [v.node for v in values]
        else:
            nodes, batched = [self.whole(v) for v in values], False
        target = np.broadcast_shapes(*(self.builder.nodes[i].shape for i in nodes))
        grown = [
            rearrange(self.builder, i, lambda index: np.broadcast_to(index, target), f"{name}.expand")
            for i in nodes
        ]
        return grown, batched

    def beside(self, value: Tensor, constant: Enclosure) -> tuple[int, Enclosure, bool]:
        """Return a node and a constant that broadcast without the batch axis, and whether the node is batched.

        Raises:
            Refusal: the constant differs between samples, or shifts the batch axis.
        """
        rank = len(self.shape(value))
        if value.batched and constant.mid.ndim < rank:
            return value.node, constant, True
        if value.batched and constant.mid.ndim == rank and constant.shape[0] == 1:
            return value.node, constant.reshape(*constant.shape[1:]), True
        return self.whole(value), constant, False

    def constant(self, value: Enclosure, name: str) -> int:
        """Append a node that is constant, with the shape of the value."""
        nothing = self.builder.add(Gather(np.full(value.shape, -1, dtype=np.int64)), 0, name=f"{name}.zeros")
        return self.builder.add(Scale(Enclosure.exact(1.0), value), nothing, name=f"{name}.constant")

    def refuse(self, op: Refused, nodes: tuple[int, ...], shape: Shape, batched: bool) -> Tensor:
        """Append a stand-in of the given node shape for an unsupported node."""
        self.builder.nodes.append(Node(op.item.where, op, nodes, shape))
        return self.tensor(len(self.builder.nodes) - 1, batched)
