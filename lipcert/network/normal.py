"""The normal form: the same real function, with affine neighbours merged.

Bounds are tighter and smaller on it: a normalisation, a batch norm or a scale factor becomes part of the layer
beside it, padding becomes part of its convolution, a convolution that sees its whole input becomes dense. All
arithmetic is done on `Enclosure`s, so nothing is rounded silently. The function is unchanged in real arithmetic;
its deployed floating-point form is the network as read, not this one.

Merging happens where the first operator has no other user. Each rule is one function `first, second -> merged`
in `_MERGES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lipcert.network.activations import TABLE, slope_interval
from lipcert.network.builder import prune
from lipcert.network.enclosure import TINY, Enclosure, gamma, round_up
from lipcert.network.graph import Network, Node, Shape
from lipcert.network.linear import apply_linear
from lipcert.network.operators import (
    Affine,
    Conv,
    Dense,
    Elementwise,
    Gather,
    Operator,
    Reshape,
    Scale,
    Softmax,
)
from lipcert.network.shapes import infer_shape


def normal_form(network: Network) -> Network:
    """Return an equal network with affine neighbours merged.

    Costs one pass over the weights; dense-dense merges cost a matrix product.
    """
    nodes: list[Node] = [network.nodes[0]]
    place = [0]
    for old, node in enumerate(network.nodes[1:], start=1):
        node = replace(node, inputs=tuple(place[i] for i in node.inputs), op=_as_scale(node.op))
        alone = len(node.inputs) == 1 and len(network.consumers[network.nodes[old].inputs[0]]) == 1
        place.append(_emit(nodes, node, alone))
    kept = prune(nodes, place[-1])
    return replace(network, nodes=tuple(kept))


def split_head(normal: Network) -> tuple[Network, Dense] | None:
    """Split a normal form into (body, head) with output = head(body), or None where the last layer is not dense.

    The body's output has shape (n,), the features; the head is the last linear layer.
    """
    last = len(normal.nodes) - 1
    while isinstance(normal.nodes[last].op, Reshape):
        last = normal.nodes[last].inputs[0]
    head = normal.nodes[last]
    if not isinstance(head.op, Dense) or len(head.shape) != 1:
        return None
    return replace(normal, nodes=tuple(prune(normal.nodes, head.inputs[0]))), head.op


def strip_softmax(network: Network) -> Network:
    """Return the network without a last softmax (or its logarithm) over the whole output.

    Softmax keeps the order of its inputs, ties included, so predictions and their margins' signs are the same.
    """
    last = len(network.nodes) - 1
    while isinstance(network.nodes[last].op, Reshape):
        last = network.nodes[last].inputs[0]
    node = network.nodes[last]
    if not isinstance(node.op, Softmax) or node.shape[node.op.axis] != node.size:
        return network
    return replace(network, nodes=tuple(prune(network.nodes, node.inputs[0])))


def _emit(nodes: list[Node], node: Node, alone: bool) -> int:
    """Append a node, merged with its producer where a rule says how; return its index."""
    if isinstance(node.op, Conv) and (dense := _as_dense(nodes, node)) is not None:
        return dense
    if isinstance(node.op, Affine):
        source = node.inputs[0]
        if _moves_nothing(node.op, nodes[source].shape, node.shape):
            if nodes[source].shape == node.shape:
                return source
            node = replace(node, op=Reshape())
        if alone and isinstance(nodes[source].op, Affine):
            merged = _merge(nodes, nodes[source], node)
            if merged is not None:
                return merged
    nodes.append(node)
    return len(nodes) - 1


def _merge(nodes: list[Node], first: Node, second: Node) -> int | None:
    """Append what replaces `second(first(x))`, or return None where no rule applies."""
    if isinstance(first.op, Scale) and isinstance(second.op, (Reshape, Gather)):
        # move the scale behind the index map, towards the next layer
        moved = replace(second, inputs=first.inputs)
        scale = Node(first.name, _moved_scale(first, second), (_emit(nodes, moved, False),), second.shape)
        return _emit(nodes, scale, False)
    rule = _MERGES.get((type(first.op), type(second.op)))
    if rule is None:
        return None
    source = nodes[first.inputs[0]].shape
    op = rule(first, second, source)
    if op is None:
        return None
    shape = infer_shape(op, [source], second.shape, second.name)
    assert shape == second.shape
    name = first.name if isinstance(second.op, Scale) else second.name
    return _emit(nodes, Node(name, op, first.inputs, shape), False)


def _moves_nothing(op: Operator, before: Shape, after: Shape) -> bool:
    match op:
        case Reshape():
            return before == after
        case Gather():
            size = int(np.prod(before, dtype=np.int64))
            return op.index.size == size and bool((op.index.ravel() == np.arange(size)).all())
        case Scale():
            trivial = (op.factor.mid == 1).all() and (op.shift.mid == 0).all()
            return bool(trivial) and op.factor.is_exact and op.shift.is_exact
        case _:
            return False


def _as_scale(op: Operator) -> Operator:
    """Rewrite an activation whose slopes leave no choice as the affine map it is: slope 1 on both sides, or constant.

    Only piecewise-linear rows of the table can have such slopes, and their value at 0 is exact.
    """
    if not isinstance(op, Elementwise):
        return op
    alpha, beta = slope_interval(op)
    if not (alpha == beta).all():
        return op
    return Scale(Enclosure.exact(alpha), Enclosure.exact(TABLE[op.name].function(np.zeros(alpha.shape), *op.params)))


def _as_dense(nodes: list[Node], node: Node) -> int | None:
    """Rewrite a convolution whose kernel covers its whole unpadded input once as a dense layer."""
    op, before = node.op, nodes[node.inputs[0]].shape
    assert isinstance(op, Conv)
    padded = any(side != 0 for pair in op.padding for side in pair)
    if padded or op.groups != 1 or op.weight.shape[2:] != before[1:] or before == node.shape == (1, 1, 1):
        return None
    outputs = op.weight.shape[0]
    flat = _emit(nodes, Node(f"{node.name}.flatten", Reshape(), node.inputs, (int(np.prod(before)),)), False)
    bias = op.bias.broadcast_to(node.shape).reshape(outputs)
    dense = Dense(op.weight.reshape(outputs, -1), bias)
    inner = _emit(nodes, Node(node.name, dense, (flat,), (outputs,)), _is_tail(nodes, flat))
    return _emit(nodes, Node(f"{node.name}.shape", Reshape(), (inner,), node.shape), False)


def _is_tail(nodes: list[Node], index: int) -> bool:
    """Whether a node was just appended, and so cannot have another user yet."""
    return index == len(nodes) - 1


def _moved_scale(first: Node, second: Node) -> Scale:
    assert isinstance(first.op, Scale)

    def move(part: Enclosure, outside: float) -> Enclosure:
        if part.mid.size == 1 and not (isinstance(second.op, Gather) and (second.op.index < 0).any()):
            return part.reshape()
        full = part.broadcast_to(first.shape)
        if isinstance(second.op, Reshape):
            return full.reshape(*second.shape)
        assert isinstance(second.op, Gather)
        index = second.op.index
        mid = np.append(full.mid.ravel(), outside)[index]
        return Enclosure(mid, np.append(full.radius.ravel(), 0.0)[index])

    return Scale(move(first.op.factor, 1.0), move(first.op.shift, 0.0))


def _linear_enclosure(op: Affine, x: Enclosure, weight: Enclosure, shape: Shape, terms: int) -> Enclosure:
    """Enclose the linear part of `op` applied to an enclosed point; `terms` bounds the length of its sums."""
    mid = apply_linear(op, x.mid[None], weight.mid, shape)[0]
    size = apply_linear(op, x.magnitude()[None], weight.magnitude(), shape)[0]
    exact = apply_linear(op, np.abs(x.mid)[None], np.abs(weight.mid), shape)[0]
    # |fl - true| <= gamma |W||x| for the centres; the radii add |W'||x'| - |W||x| with their own rounding
    spread = np.abs(size - exact) if not (x.is_exact and weight.is_exact) else 0.0
    rad = round_up(spread + 4.0 * gamma(terms + 2) * size + terms * TINY, 8)
    return Enclosure(mid, rad)


def _scale_scale(first: Node, second: Node, source: Shape) -> Operator | None:
    assert isinstance(first.op, Scale) and isinstance(second.op, Scale)
    return Scale(first.op.factor * second.op.factor, first.op.shift * second.op.factor + second.op.shift)


def _dense_scale(first: Node, second: Node, source: Shape) -> Operator | None:
    assert isinstance(first.op, Dense) and isinstance(second.op, Scale)
    factor = second.op.factor
    if factor.mid.size != 1 and factor.shape[-1:] != (first.shape[-1],):
        return None
    if factor.mid.size not in (1, first.shape[-1]):
        return None
    rows = factor.reshape(-1, 1)
    return Dense(first.op.weight * rows, first.op.bias * factor.reshape(-1) + second.op.shift)


def _per_channel(part: Enclosure, shape: Shape) -> Enclosure | None:
    """Return a factor as one number per channel, or None where it varies over the spatial axes."""
    if part.mid.size == 1:
        return part.reshape(1)
    full = (1,) * (len(shape) - part.mid.ndim) + part.shape
    if any(size != 1 for size in full[1:]):
        return None
    return part.reshape(-1)


def _conv_scale(first: Node, second: Node, source: Shape) -> Operator | None:
    assert isinstance(first.op, Conv) and isinstance(second.op, Scale)
    factor = _per_channel(second.op.factor, first.shape)
    if factor is None:
        return None
    rank = first.op.weight.mid.ndim
    weight = first.op.weight * factor.reshape(-1, *(1,) * (rank - 1))
    bias = first.op.bias * factor.reshape(-1, *(1,) * (rank - 2)) + second.op.shift
    return replace(first.op, weight=weight, bias=bias)


def _scale_dense(first: Node, second: Node, source: Shape) -> Operator | None:
    assert isinstance(first.op, Scale) and isinstance(second.op, Dense)
    if len(source) != 1:
        return None
    factor = first.op.factor.broadcast_to(source)
    shift = first.op.shift.broadcast_to(source)
    bias = second.op.bias
    if shift.mid.any() or not shift.is_exact:
        bias = bias + (second.op.weight @ shift.reshape(-1, 1)).reshape(-1)
    return Dense(second.op.weight * factor, bias)


def _scale_conv(first: Node, second: Node, source: Shape) -> Operator | None:
    assert isinstance(first.op, Scale) and isinstance(second.op, Conv)
    op = second.op
    factor = _per_channel(first.op.factor, source)
    if factor is None:
        return None
    bias = op.bias
    if first.op.shift.mid.any() or not first.op.shift.is_exact:
        shift = first.op.shift.broadcast_to(source)
        terms = int(np.prod(op.weight.shape[1:]))
        bias = bias + _linear_enclosure(op, shift, op.weight, second.shape, terms)
    rank = op.weight.mid.ndim
    columns = factor.broadcast_to((source[0],)).reshape(op.groups, 1, -1, *(1,) * (rank - 2))
    grouped = op.weight.reshape(op.groups, -1, *op.weight.shape[1:])
    return replace(op, weight=(grouped * columns).reshape(*op.weight.shape), bias=bias)


def _dense_dense(first: Node, second: Node, source: Shape) -> Operator | None:
    assert isinstance(first.op, Dense) and isinstance(second.op, Dense)
    (middle, before), after = first.op.weight.shape, second.op.weight.shape[0]
    if after * before > after * middle + middle * before or first.op.bias.mid.ndim > 1:
        return None
    bias = second.op.weight @ first.op.bias.broadcast_to((middle,)).reshape(-1, 1)
    return Dense(second.op.weight @ first.op.weight, bias.reshape(-1) + second.op.bias)


def _gather_gather(first: Node, second: Node, source: Shape) -> Operator | None:
    assert isinstance(first.op, Gather) and isinstance(second.op, Gather)
    return Gather(np.append(first.op.index.ravel(), -1)[second.op.index])


def _gather_reshape(first: Node, second: Node, source: Shape) -> Operator | None:
    assert isinstance(first.op, Gather)
    return Gather(first.op.index.reshape(second.shape))


def _reshape_gather(first: Node, second: Node, source: Shape) -> Operator | None:
    return second.op


def _reshape_reshape(first: Node, second: Node, source: Shape) -> Operator | None:
    return Reshape()


def _gather_conv(first: Node, second: Node, source: Shape) -> Operator | None:
    """Zero padding before a convolution becomes the convolution's own."""
    assert isinstance(first.op, Gather) and isinstance(second.op, Conv)
    op, index = second.op, first.op.index
    if op.circular or index.ndim != len(source) or index.shape[0] != source[0]:
        return None
    inside = np.argwhere(index >= 0)
    if not len(inside):
        return None
    before = inside.min(axis=0)
    after = np.array(index.shape) - before - np.array(source)
    widths = [(int(a), int(b)) for a, b in zip(before, after, strict=True)]
    if before[0] != 0 or (after < 0).any():
        return None
    original = np.arange(int(np.prod(source))).reshape(source)
    if not np.array_equal(np.pad(original, widths, constant_values=-1), index):
        return None
    padding = tuple((a + c, b + d) for (a, b), (c, d) in zip(op.padding, widths[1:], strict=True))
    return replace(op, padding=padding)


Merge = Callable[[Node, Node, Shape], Operator | None]
_MERGES: dict[tuple[type[Operator], type[Operator]], Merge] = {
    (Scale, Scale): _scale_scale,
    (Scale, Dense): _scale_dense,
    (Scale, Conv): _scale_conv,
    (Dense, Scale): _dense_scale,
    (Conv, Scale): _conv_scale,
    (Dense, Dense): _dense_dense,
    (Gather, Gather): _gather_gather,
    (Gather, Reshape): _gather_reshape,
    (Reshape, Gather): _reshape_gather,
    (Reshape, Reshape): _reshape_reshape,
    (Gather, Conv): _gather_conv,
}
