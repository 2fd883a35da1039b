"""Networks that a seed gives: as deep or as wide as no published file is."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from lipcert.network import Network
from lipcert.network.enclosure import Float
from lipcert.testing.build import mlp

SEEDED: Mapping[str, tuple[int, int]] = MappingProxyType({"seeded/63x64": (63, 64), "seeded/10x2000": (10, 2000)})
"""By name, the number of hidden layers and their width; input and output are as wide."""


def seeded(name: str) -> Network:
    """Return a chain of ReLU layers of one width, weights (q * uniform(0.7, 1.3)) @ p with q, p orthogonal, float32.

    name: ``seeded/LxW`` for L hidden layers of width W.

    Raises:
        ValueError: the name is not of this form.
    """
    kind, _, size = name.partition("/")
    layers, width = (int(number) for number in size.split("x"))
    if kind != "seeded" or layers < 1 or width < 1:
        raise ValueError(f"'{name}' is not of the form seeded/LxW")
    rng = np.random.default_rng(0)
    return mlp([_near_orthogonal(rng, width) for _ in range(layers + 1)])


def _near_orthogonal(rng: np.random.Generator, width: int) -> Float:
    left, right = _orthogonal(rng, width), _orthogonal(rng, width)
    return ((left * rng.uniform(0.7, 1.3, width)) @ right).astype(np.float32).astype(np.float64)


def _orthogonal(rng: np.random.Generator, width: int) -> Float:
    q, r = np.linalg.qr(rng.standard_normal((width, width)))
    return np.asarray(q * np.sign(np.diag(r)))
