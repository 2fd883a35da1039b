"""The network being built, and how index maps of ONNX act on it.

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

from lipcert.network.builder import Builder
from lipcert.network.enclosure import Enclosure
from lipcert.network.graph import Node, Shape
from lipcert.network.operators import Gather, Scale
from lipcert.network.readers.common import expand, rearrange, reshape
from lipcert.network.readers.onnx.values import Array, Refusal, Refused, Tensor

Move = Callable[[Array, int], Any]  # (array of graph shape, batch size) -> array; only moves or repeats entries

FIX_BATCH = "if only batches of one are meant, export the model with its batch size fixed to 1"
MIXES = f"mixes the samples of a batch, or moves the batch axis, so one sample has no output of its own; {FIX_BATCH}"


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
        try:
            index = np.asarray(move(np.arange(size * count).reshape(size, *own), size))
        except ValueError as error:
            raise Refusal(f"does not work for batches of {size} samples ({error}); {FIX_BATCH}") from None
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
        return [expand(self.builder, i, target, f"{name}.expand") for i in nodes], batched

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
