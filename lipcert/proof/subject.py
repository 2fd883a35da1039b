"""The function that a claim speaks of, rebuilt from the network alone."""

from __future__ import annotations

from lipcert.network.graph import Network
from lipcert.network.normal import normal_form, split_head, strip_softmax
from lipcert.proof.claims import Quantity
from lipcert.proof.refusal import Refused


def subject(network: Network, quantity: Quantity) -> Network:
    """Return the normal form of what `quantity` names.

    ``output``: the network as it is. ``features``: what enters the last linear layer, a last softmax set aside.

    Raises:
        Refused: features are asked for, and the last layer is not linear.
    """
    if quantity == "output":
        return normal_form(network)
    parts = split_head(normal_form(strip_softmax(network)))
    if parts is None:
        raise Refused("the network does not end with a linear layer, so it has no features to speak of")
    return parts[0]
