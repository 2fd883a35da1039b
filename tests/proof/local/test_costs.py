"""What linear functions cost on their way, against the windows that they really have."""

from __future__ import annotations

import numpy as np
import pytest

from lipcert.network.builder import Builder
from lipcert.network.graph import Network
from lipcert.network.linear import dense_matrix
from lipcert.network.operators import AvgPool, Conv, Elementwise, Reshape, Sum
from lipcert.proof.local import Costs
from lipcert.proof.local.costs import MOST
from lipcert.testing.build import RELU, conv, dense, matrices, mlp


def _branches(stride: int) -> Network:
    """Two ways of different depth that meet, pooling, and a dense head."""
    pads = ((1, 1), (1, 1))
    builder = Builder((2, 12, 12))
    first = builder.add(Elementwise("relu"), builder.add(conv(0, (3, 2, 3, 3), stride=stride, padding=pads), 0))
    second = builder.add(conv(1, (3, 3, 3, 3), padding=pads), first)
    total = builder.add(Sum((1, 1)), builder.add(Elementwise("relu"), second), first)
    size = 12 // stride // 2
    pooled = builder.add(AvgPool((2, 2), (2, 2), ((0, 0), (0, 0)), np.full((size, size), 4.0)), total)
    flat = builder.add(Reshape(), pooled, shape=(3 * size * size,))
    builder.add(dense(matrices(0, 3 * size * size, 4)[0]), flat)
    return builder.build()


def _reached(network: Network, source: int) -> dict[int, np.ndarray]:
    """Which entries of later nodes those of one node reach: boolean matrices (entries there, entries here)."""
    found = {source: np.eye(network.nodes[source].size, dtype=bool)}
    for index in range(source + 1, len(network.nodes)):
        node, parts = network.nodes[index], []
        for i in node.inputs:
            if i in found:
                before = network.nodes[i].shape
                linear = not isinstance(node.op, (Elementwise, Sum, Reshape))
                step = dense_matrix(node.op, before, node.shape) != 0 if linear else np.eye(node.size, dtype=bool)
                parts.append(step @ found[i])
        if parts:
            found[index] = np.any(parts, axis=0)
    return found


@pytest.mark.parametrize("stride", [1, 2])
def test_a_symbol_has_no_more_coefficients_than_are_counted(stride):
    network = _branches(stride)
    costs = Costs(network)
    for source in (0, 2, 4):
        for index, reached in _reached(network, source).items():
            most = reached.sum(axis=0).max()
            assert most <= costs.numbers(source)[index]
            if stride == 1 and isinstance(network.nodes[index].op, Conv):
                assert most == costs.numbers(source)[index]


def test_costs_grow_with_the_way():
    costs = Costs(_branches(1))
    assert (np.diff(costs.forwards(0)) >= 0).all() and costs.forwards(0)[-1] > costs.forwards(4)[-1] > 0
    assert costs.backwards[4] > costs.backwards[1] > 0
    assert costs.growth(4) > costs.growth(1) > 0


def test_memory_limits_how_many_samples_have_zonotopes_at_a_time():
    shallow = Costs(mlp(matrices(1, 50, 20, 20, 4)))
    assert not shallow.looks and shallow.at_once > 1000
    builder, last = Builder((1, 40, 40)), 0
    for depth in range(8):
        layer = conv(depth, (8, 8 if last else 1, 3, 3), padding=((1, 1), (1, 1)))
        last = builder.add(RELU, builder.add(layer, last))
    deep = Costs(builder.build())
    assert deep.looks and deep.narrowing > 10 * deep.look
    assert deep.at_once >= 1 and 8 * deep.at_once * min(MOST, 1600 * deep.numbers(0).max()) <= 2**28
