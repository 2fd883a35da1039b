"""Operators of ONNX that look at several values at once: maxima, sorting, softmax, concatenation."""

from __future__ import annotations

import math

import numpy as np

from lipcert.network.enclosure import Enclosure
from lipcert.network.operators import Concat, Extremum, Softmax
from lipcert.network.readers import common
from lipcert.network.readers.onnx.activations import clipped
from lipcert.network.readers.onnx.call import Call
from lipcert.network.readers.onnx.maxmin import max_min
from lipcert.network.readers.onnx.values import Refusal, Tensor, Unknown, Value


def maximum(call: Call) -> Value:
    """Largest of several inputs."""
    return _extremum(call, True)


def minimum(call: Call) -> Value:
    """Smallest of several inputs."""
    return _extremum(call, False)


def _extremum(call: Call, largest: bool) -> Tensor:
    graph = call.graph
    tensors = [v for v in call.inputs if isinstance(v, Tensor)]
    bounds = [call.exact(i) for i, v in enumerate(call.inputs) if not isinstance(v, Tensor)]
    found = tensors[0]
    if len(tensors) > 1:
        nodes, batched = graph.aligned(tensors, call.name)
        found = graph.tensor(call.builder.add(Extremum(largest), *nodes, name=call.name), batched)
    for bound in bounds:
        node, own, batched = graph.beside(found, Enclosure.exact(bound))
        grown = common.expand(call.builder, node, own.shape, f"{call.name}.expand")
        ends = (own.mid, np.array(math.inf)) if largest else (np.array(-math.inf), own.mid)
        found = clipped(call, graph.tensor(grown, batched), *ends)
    return found


def softmax(call: Call) -> Value:
    """Softmax or its logarithm; before version 13 over all axes from `axis` on, taken as one."""
    graph, x = call.graph, call.data()
    rank, flattens = len(graph.shape(x)), graph.opset < 13
    axis = call.axis(1 if flattens else -1, rank)
    inner = x.batched and axis > 0
    node, own = (x.node, axis - 1) if inner else (graph.whole(x), axis)
    shape, log = call.builder.nodes[node].shape, call.proto.op_type == "LogSoftmax"
    if not flattens or own == len(shape) - 1:
        return graph.tensor(call.builder.add(Softmax(own, log), node, name=call.name), inner)
    rows = (math.prod(shape[:own]), math.prod(shape[own:]))
    flat = common.reshape(call.builder, node, rows, f"{call.name}.flat")
    found = call.builder.add(Softmax(1, log), flat, name=call.name)
    return graph.tensor(common.reshape(call.builder, found, shape, f"{call.name}.shape"), inner)


def sort(call: Call) -> Value | list[Value]:
    """TopK: the values are the sorted entries of an axis; their indices are not supported."""
    graph, x = call.graph, call.data()
    rank = len(graph.shape(x))
    axis = call.axis(-1, rank)
    inner = x.batched and axis > 0
    node, own = (x.node, axis - 1) if inner else (graph.whole(x), axis)
    (count,) = call.option("k", 1) or (0,)
    if not call.flag("sorted", 1):
        raise Refusal("leaves the order of the entries open (sorted=0)")
    size, largest = call.builder.nodes[node].shape[own], call.flag("largest", 1)
    ordered = common.sort_axis(call.builder, node, own, size, call.name, largest)
    kept = common.select(call.builder, ordered, own, np.arange(count), f"{call.name}.top")
    return [graph.tensor(kept, inner), Unknown()]


def concat(call: Call) -> Value:
    """Concatenation of branches and constants; MaxMin where it is one."""
    graph, tensors = call.graph, [v for v in call.inputs if isinstance(v, Tensor)]
    axis = call.axis(1, len(graph.shape(tensors[0])))
    inner = axis > 0 and all(t.batched for t in tensors)
    nodes = []
    for position, value in enumerate(call.inputs):
        if isinstance(value, Tensor):
            nodes.append(value.node if inner else graph.whole(value))
            continue
        numbers = call.numbers(position)
        if (inner and numbers.shape[0] != 1) or graph.tracked:
            raise Refusal("joins a constant whose first axis is the batch; fix the batch size to 1 when exporting")
        nodes.append(graph.constant(numbers.reshape(*numbers.shape[1:]) if inner else numbers, call.name))
    own = axis - 1 if inner else axis
    found = max_min(call, nodes, own)
    if found is None:
        found = call.builder.add(Concat(own), *nodes, name=call.name)
    return graph.tensor(found, inner)
