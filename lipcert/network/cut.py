"""Where a network can be cut into parts that are applied one after the other.

A *cut node* is a node through which every path from the input to the output runs: every later node reads nothing
from before it. The nodes between two cut nodes are a *stretch*, a function of the first one's value alone, and the
network is the composition of its stretches.
"""

from __future__ import annotations

from dataclasses import replace

from lipcert.network.builder import prune
from lipcert.network.graph import Network, Node
from lipcert.network.operators import Input


def cut_nodes(network: Network) -> tuple[int, ...]:
    """Return the indices of all cut nodes, ascending: the input first, the output last.

    The network is as `builder.prune` leaves it: every node reaches the output.
    """
    cuts = []
    farthest = 0  # the last node that reads anything before the one at hand
    for index, readers in enumerate(network.consumers):
        if farthest <= index:
            cuts.append(index)
        farthest = max(farthest, *readers, 0)
    return tuple(cuts)


def stretch(network: Network, start: int, end: int) -> Network:
    """Return the nodes behind `start` up to `end` as a network of its own; its input has the shape of `start`.

    Node i of the network is node i - start of the stretch where every node between reaches `end`.

    Raises:
        ValueError: there is no such stretch: a node reads from before `start`, or the nodes are not in this order.
    """
    if not 0 <= start < end < len(network.nodes):
        raise ValueError(f"no stretch leads from node {start} to node {end} of {len(network.nodes)}")
    nodes = [Node(network.nodes[start].name, Input(), (), network.nodes[start].shape)]
    for node in network.nodes[start + 1 : end + 1]:
        if min(node.inputs) < start:
            raise ValueError(f"'{node.name}' reads from before '{network.nodes[start].name}', which is no place to cut")
        nodes.append(replace(node, inputs=tuple(i - start for i in node.inputs)))
    return replace(network, nodes=tuple(prune(nodes)), notes=())
