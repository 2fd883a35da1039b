"""Matrix products with a constant on either side: MatMul and Gemm."""

from __future__ import annotations

import math

import numpy as np

from lipcert.network.enclosure import Enclosure
from lipcert.network.operators import Dense
from lipcert.network.readers import common
from lipcert.network.readers.onnx.call import Call
from lipcert.network.readers.onnx.sums import ONE, ZERO, add_signed, scaled
from lipcert.network.readers.onnx.values import Refusal, Tensor, Value


def matmul(call: Call) -> Value:
    """Product with a constant matrix or vector on either side."""
    left, right = call.inputs
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        raise Refusal(common.PRODUCT_REASON)
    if isinstance(left, Tensor):
        weight = _matrix(call.numbers(1), len(call.graph.shape(left)))
        return _dense(call, left, weight.map(np.transpose), None, weight.mid.ndim == 1)
    assert isinstance(right, Tensor)
    weight = _matrix(call.numbers(0), len(call.graph.shape(right)))
    rank = len(call.graph.shape(right))
    if rank == 1:
        return _dense(call, right, weight, None, weight.mid.ndim == 1)
    order = (*range(rank - 2), rank - 1, rank - 2)
    turned = call.graph.moved(right, lambda a, _: a.transpose(order), f"{call.name}.turn")
    found = _dense(call, turned, weight, None, weight.mid.ndim == 1)
    if weight.mid.ndim == 1:
        return found
    return call.graph.moved(found, lambda a, _: a.transpose(order), f"{call.name}.back")


def _matrix(weight: Enclosure, rank: int) -> Enclosure:
    """Return a constant factor as a matrix or vector."""
    if weight.mid.ndim <= 2:
        return weight
    if math.prod(weight.shape[:-2]) != 1 or weight.mid.ndim > rank:
        raise Refusal("multiplies by a stack of matrices; write it as a grouped convolution of kernel size 1")
    return weight.reshape(*weight.shape[-2:])


def _dense(call: Call, x: Tensor, weight: Enclosure, bias: Enclosure | None, vector: bool) -> Tensor:
    """Append a `Dense` on the last axis of the graph's shape; a vector as weight takes the axis away.

    weight: (m, n), or (n,) for a vector. bias: broadcastable to the output, without the batch axis.
    """
    graph = call.graph
    inner = x.batched and len(graph.shape(x)) > 1
    node = x.node if inner else graph.whole(x)
    rows = weight.reshape(1, -1) if vector else weight
    found = call.builder.add(Dense(rows, bias or ZERO), node, name=call.name)
    if vector:
        found = common.reshape(call.builder, found, call.builder.nodes[found].shape[:-1], f"{call.name}.shape")
    return graph.tensor(found, inner)


def gemm(call: Call) -> Value:
    """alpha * A' B' + beta * C with A or B constant; C may be either."""
    left, right = call.inputs[:2]
    alpha, beta = (Enclosure.exact(call.number(name, 1.0)) for name in ("alpha", "beta"))
    turn_left, turn_right = call.flag("transA"), call.flag("transB")
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        raise Refusal(common.PRODUCT_REASON)
    if isinstance(left, Tensor):
        weight = call.numbers(1) if turn_right else call.numbers(1).map(np.transpose)
        found = _gemm_data(call, left, weight * alpha, turn_left)
    else:  # Y = A' B', so Y^T = B'^T A'^T: a dense layer with weight A' on the columns of B'
        weight = call.numbers(0).map(np.transpose) if turn_left else call.numbers(0)
        columns = _gemm_data(call, call.data(1), weight * alpha, not turn_right)
        found = call.graph.moved(columns, lambda a, _: a.transpose(), f"{call.name}.back")
    if not call.has(2):
        return found
    third = call.inputs[2]
    if isinstance(third, Tensor):
        return add_signed(call, found, third if beta.mid == 1 else scaled(call, third, beta, ZERO), (1, 1))
    return _biased(call, found, call.numbers(2) * beta)


def _gemm_data(call: Call, x: Tensor, weight: Enclosure, turn: bool) -> Tensor:
    if len(call.graph.shape(x)) != 2:
        raise Refusal(f"multiplies data of shape {call.graph.shape(x)}, where a matrix is needed")
    if turn:
        x = call.graph.moved(x, lambda a, _: a.transpose(), f"{call.name}.turn")
    return _dense(call, x, weight, None, False)


def _biased(call: Call, x: Tensor, bias: Enclosure) -> Tensor:
    """Add a bias: into the dense layer that was just made where it fits, as a node of its own elsewhere."""
    graph, last = call.graph, call.builder.nodes[-1]
    if x.node == len(call.builder.nodes) - 1 and isinstance(last.op, Dense):
        _, own, batched = graph.beside(x, bias)
        if batched == x.batched and np.broadcast_shapes(own.shape, last.shape) == last.shape:
            call.builder.nodes.pop()
            return Tensor(call.builder.add(Dense(last.op.weight, own), *last.inputs, name=last.name), x.batched)
    return scaled(call, x, ONE, bias)
