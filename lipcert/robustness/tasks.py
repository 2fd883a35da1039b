"""Networks whose outputs are no classes, turned into ones that have margins; the real functions are those of before.

* One logit z, labels 0 and 1: the two logits (0, z). The margin of label 1 is z, that of label 0 is -z; z = 0 is a
  tie and a loss.
* Regression, outputs z_1 .. z_m: the logits (z, -z, 0). The margins of the last one are -z and z: lower bounds of them
  are bounds of every output from above and below, whatever method they come from.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lipcert.network.builder import prune
from lipcert.network.enclosure import Enclosure, Float
from lipcert.network.graph import Network, Node
from lipcert.network.operators import Dense, Elementwise, Reshape, Scale

LOGITS = "outputs as logits"  # name of the node behind the network


def two_logits(network: Network) -> Network:
    """Return a network with one output as a classifier of two classes; a last sigmoid is set aside.

    A sigmoid keeps the side of its input: above 1/2 for positive ones, below for negative ones.
    """
    last = _behind_reshapes(network)
    end = network.nodes[last].inputs[0] if ends_in_sigmoid(network) else last
    found = _followed_by(network, end, np.array([[0.0], [1.0]]), np.zeros(2))
    return replace(found, notes=(*network.notes, "the one output is the logit of class 1 against class 0"))


def ends_in_sigmoid(network: Network) -> bool:
    """Whether `two_logits` sets a last sigmoid aside."""
    op = network.nodes[_behind_reshapes(network)].op
    return isinstance(op, Elementwise) and op.name == "sigmoid"


def both_signs(network: Network, scale: Float, offset: Float) -> Network:
    """Return the network with the outputs (z, -z, 0), where z = scale * outputs + offset.

    Args:
        network: m outputs.
        scale, offset: (m,) exact numbers.
    """
    weight = np.concatenate([np.diag(scale), -np.diag(scale), np.zeros((1, len(scale)))])
    return _followed_by(network, len(network.nodes) - 1, weight, np.concatenate([offset, -offset, [0.0]]))


def in_units(network: Network, radii: Float) -> Network:
    """Return the network on u, where its input is radii * u; radii: one exact number for each input."""
    if (radii == 1).all():
        return network
    first, *others = network.nodes
    shape = network.input_shape
    scale = Scale(Enclosure.exact(radii.reshape(shape)), Enclosure.exact(np.zeros((1,) * len(shape))))
    moved = (replace(node, inputs=tuple(i + 1 for i in node.inputs)) for node in others)
    return replace(network, nodes=(first, Node("units of the inputs", scale, (0,), shape), *moved))


def _behind_reshapes(network: Network) -> int:
    """Return the last node that is no reshaping."""
    last = len(network.nodes) - 1
    while isinstance(network.nodes[last].op, Reshape):
        last = network.nodes[last].inputs[0]
    return last


def _followed_by(network: Network, end: int, weight: Float, bias: Float) -> Network:
    """Return the network up to a node, flattened, with a dense layer behind it."""
    nodes = prune(network.nodes, end)
    if len(nodes[-1].shape) != 1:
        nodes.append(Node("flattened outputs", Reshape(), (len(nodes) - 1,), (nodes[-1].size,)))
    dense = Dense(Enclosure.exact(weight), Enclosure.exact(bias))
    nodes.append(Node(LOGITS, dense, (len(nodes) - 1,), (len(weight),)))
    return replace(network, nodes=tuple(nodes))
