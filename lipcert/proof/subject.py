"""The function that a claim speaks of, rebuilt from the network alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lipcert.network.enclosure import Enclosure
from lipcert.network.graph import Network, Node
from lipcert.network.normal import normal_form, split_head, strip_softmax
from lipcert.network.operators import Dense, Reshape
from lipcert.proof.claims import Quantity, classes_of
from lipcert.proof.refusal import Refused


def subject(network: Network, quantity: Quantity) -> Network:
    """Return the normal form of what `quantity` names (see `Claim`).

    ``output``: the network as it is. All others set a last softmax aside. ``margins``: all logits. ``features``: what
    enters the last linear layer. ``logit I``, ``margin I J``: a network with one output; where the last layer is
    linear, its row, or the difference of two of its rows, takes its place.

    Raises:
        Refused: features are asked for, and the last layer is not linear; or there is no such logit.
        ValueError: there is no such quantity.
    """
    classes = classes_of(quantity)
    if quantity == "output":
        return normal_form(network)
    normal = normal_form(strip_softmax(network))
    if quantity == "margins":
        if normal.nodes[-1].size < 2:
            raise Refused("the network has a single output, and so no margins")
        return normal
    parts = split_head(normal)
    if quantity != "features":
        return normal_form(_towards(normal, parts, quantity, classes))
    if parts is None:
        raise Refused("the network does not end with a linear layer, so it has no features to speak of")
    return parts[0]


def direction(rows: Enclosure, classes: tuple[int, ...]) -> Enclosure:
    """Return row I of a matrix, or row I minus row J, as a matrix of one row."""
    first, *others = (_row(rows, k) for k in classes)
    return first - others[0] if others else first


def _row(rows: Enclosure, k: int) -> Enclosure:
    return rows.map(lambda a: a[k : k + 1])


def _towards(normal: Network, parts: tuple[Network, Dense] | None, name: str, classes: tuple[int, ...]) -> Network:
    """Return the network with one output, in a direction."""
    count = normal.nodes[-1].size
    if max(classes) >= count:
        raise Refused(f"there is no output {max(classes)}: the network has {count}, counted from 0")
    if parts is not None:
        body, head = parts
        bias = direction(head.bias.broadcast_to((count,)).reshape(count, 1), classes)
        last = Dense(direction(head.weight, classes), bias.reshape(1))
    else:
        flat = Node("flatten", Reshape(), (len(normal.nodes) - 1,), (count,))
        body = replace(normal, nodes=(*normal.nodes, flat))
        row = np.zeros((1, count))
        row[0, classes] = [1.0, -1.0][: len(classes)]
        last = Dense(Enclosure.exact(row), Enclosure.exact(np.zeros(1)))
    return replace(body, nodes=(*body.nodes, Node(name, last, (len(body.nodes) - 1,), (1,))))
