"""Building a network node by node, with every shape inferred and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lipcert.errors import UsageError
from lipcert.network.graph import Network, Node, Shape, Source
from lipcert.network.operators import Input, Operator
from lipcert.network.shapes import infer_shape


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
    return [Node(nodes[i].name, nodes[i].op, tuple(place[j] for j in nodes[i].inputs), nodes[i].shape) for i in order]
