"""MaxMin that exporters write as a maximum and a minimum of the same two branches, joined."""

from __future__ import annotations

from functools import partial

import numpy as np

from lipcert.network.builder import Builder
from lipcert.network.operators import Concat, Extremum, Gather, Ints, Reshape
from lipcert.network.readers import common
from lipcert.network.readers.onnx.call import Call


def max_min(call: Call, nodes: list[int], axis: int) -> int | None:
    """Append MaxMin for Concat(max(a, b), min(a, b)) in either order along `axis`; None where it is something else."""
    builder = call.builder
    if len(nodes) != 2:
        return None
    first, second = (_through_reshapes(builder, node) for node in nodes)
    ops = [builder.nodes[i].op for i in (first, second)]
    if not (isinstance(ops[0], Extremum) and isinstance(ops[1], Extremum)):
        return None
    pair, other = builder.nodes[first].inputs, builder.nodes[second].inputs
    if ops[0].maximum == ops[1].maximum or len(pair) != 2 or len(other) != 2:
        return None
    if not any(all(map(partial(_same, builder), pair, order)) for order in (other, other[::-1])):
        return None
    source, groups = _pairs(call, *pair)
    shape = builder.nodes[nodes[0]].shape
    ranks = 2 * np.arange(len(groups)).reshape(shape)
    back = np.concatenate([ranks + int(op.maximum) for op in ops if isinstance(op, Extremum)], axis=axis)
    return common.sort_groups(builder, source, groups, back, call.name)


def _through_reshapes(builder: Builder, node: int) -> int:
    while isinstance(builder.nodes[node].op, Reshape):
        node = builder.nodes[node].inputs[0]
    return node


def _same(builder: Builder, a: int, b: int) -> bool:
    """Whether two nodes hold the same entries of the same node."""
    (source, left), (other, right) = (_origin(builder, node) for node in (a, b))
    return source == other and np.array_equal(left, right)


def _pairs(call: Call, a: int, b: int) -> tuple[int, Ints]:
    """Return a node and, for each entry of a and b, the two positions in it that hold them."""
    builder = call.builder
    (source, left), (other, right) = (_origin(builder, node) for node in (a, b))
    if source != other or min(left.min(), right.min()) < 0:
        count = builder.nodes[a].size
        parts = [common.reshape(builder, node, (count,), f"{call.name}.flat") for node in (a, b)]
        source = builder.add(Concat(0), *parts, name=f"{call.name}.pairs")
        left, right = np.arange(count), np.arange(count, 2 * count)
    return source, np.stack([left.ravel(), right.ravel()], axis=1)


def _origin(builder: Builder, node: int) -> tuple[int, Ints]:
    """Return the node behind all index maps, and the flat position in it of each entry; -1 for a constant 0."""
    index: Ints = np.arange(builder.nodes[node].size)
    while isinstance(op := builder.nodes[node].op, (Gather, Reshape)):
        if isinstance(op, Gather):
            index = np.append(op.index.ravel(), -1)[index]
        node = builder.nodes[node].inputs[0]
    return node, index
