"""Cut nodes and stretches: against removing the node, and against evaluating the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import networks

from lipcert.network import Network
from lipcert.network.cut import cut_nodes, stretch
from lipcert.network.evaluate import evaluate_nodes
from lipcert.network.operators import Sum
from lipcert.testing.build import RELU, chain, dense, matrices
from lipcert.testing.zoo import zoo


def separates(network: Network, node: int) -> bool:
    """Whether the output cannot be reached from the input once a node is taken away."""
    last = len(network.nodes) - 1
    if node in (0, last):
        return True
    reached = {0}
    for index, other in enumerate(network.nodes):
        if index != node and reached & set(other.inputs):
            reached.add(index)
    return last not in reached


@settings(max_examples=150, deadline=None)
@given(networks())
def test_cut_nodes_are_those_without_which_nothing_reaches_the_output(network: Network) -> None:
    expected = [i for i in range(len(network.nodes)) if separates(network, i)]
    assert list(cut_nodes(network)) == expected


@pytest.mark.parametrize("name", zoo())
def test_cut_nodes_of_the_zoo(name: str) -> None:
    network = zoo()[name]
    assert list(cut_nodes(network)) == [i for i in range(len(network.nodes)) if separates(network, i)]


def test_a_residual_block_has_no_cut_inside() -> None:
    network = zoo()["residual x + g(x)"]
    assert cut_nodes(network) == (0, len(network.nodes) - 1)
    two = zoo()["ReLU behind sums, one with a minus"]
    sums = [i for i, node in enumerate(two.nodes) if isinstance(node.op, Sum)]
    assert set(sums) <= set(cut_nodes(two))


@settings(max_examples=100, deadline=None)
@given(networks(), st.data())
def test_a_stretch_computes_its_end_from_its_start(network: Network, data: st.DataObject) -> None:
    cuts = cut_nodes(network)
    assume(len(cuts) > 1)
    start, end = sorted(data.draw(st.lists(st.sampled_from(cuts), min_size=2, max_size=2, unique=True)))
    x = np.random.default_rng(0).normal(size=(3, *network.input_shape))
    values = evaluate_nodes(network, x)
    part = stretch(network, start, end)
    assert part.input_shape == network.nodes[start].shape
    assert len(part.nodes) == end - start + 1
    np.testing.assert_array_equal(evaluate_nodes(part, values[start])[-1], values[end])


def test_the_whole_network_is_a_stretch_of_itself() -> None:
    for network in zoo().values():
        if len(network.nodes) > 1:
            part = stretch(network, 0, len(network.nodes) - 1)
            assert part.graph_digest == network.graph_digest
            assert part.weights_digest == network.weights_digest


def test_stretches_that_read_from_before_their_start_are_refused() -> None:
    network = zoo()["residual x + g(x)"]
    last = len(network.nodes) - 1
    for start in range(1, last):
        with pytest.raises(ValueError, match="no place to cut"):
            stretch(network, start, last)


@pytest.mark.parametrize(("start", "end"), [(2, 2), (3, 1), (-1, 2), (0, 4), (0, 99)])
def test_stretches_that_do_not_exist_are_refused(start: int, end: int) -> None:
    first, second = (dense(w) for w in matrices(1, 3, 4, 2))
    with pytest.raises(ValueError, match="no stretch leads"):
        stretch(chain((3,), first, RELU, second), start, end)
