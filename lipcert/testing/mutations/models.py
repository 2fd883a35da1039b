"""Mutations of the model; the certificate stays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from lipcert.network.enclosure import Enclosure
from lipcert.network.graph import Network
from lipcert.network.operators import Conv, Dense, Elementwise, Scale
from lipcert.testing.mutations.case import Filed, Rng, pick


def flip_weight_bit(case: Filed, rng: Rng) -> tuple[bytes, Network] | None:
    """Flip one bit of one weight of the model; the certificate stays."""
    places = [i for i, node in enumerate(case.network.nodes) if isinstance(node.op, (Dense, Conv, Scale))]
    if not places:
        return None
    index = pick(rng, places)
    op: Any = case.network.nodes[index].op
    field = "factor" if isinstance(op, Scale) else "weight"
    numbers: Enclosure = getattr(op, field)
    changed = numbers.mid.copy()
    changed.reshape(-1).view(np.int64)[rng.integers(changed.size)] ^= np.int64(1) << int(rng.integers(63))
    if not np.isfinite(changed).all():
        return None
    return case.content, _with_op(case.network, index, replace(op, **{field: Enclosure(changed, numbers.rad)}))


def change_slope(case: Filed, rng: Rng) -> tuple[bytes, Network] | None:
    """Give an activation of the model other slopes; the certificate stays."""
    places = [i for i, node in enumerate(case.network.nodes) if isinstance(node.op, Elementwise)]
    if not places:
        return None
    index = pick(rng, places)
    slope = np.array(float(rng.uniform(-3.0, 3.0)))
    return case.content, _with_op(case.network, index, Elementwise("leaky_relu", (slope,)))


def _with_op(network: Network, index: int, op: Any) -> Network:
    nodes = list(network.nodes)
    nodes[index] = replace(nodes[index], op=op)
    return replace(network, nodes=tuple(nodes))
