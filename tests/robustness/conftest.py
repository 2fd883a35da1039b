"""A small network, and data for it."""

from __future__ import annotations

import pytest
from small_networks import labelled, random_chain


@pytest.fixture(scope="module")
def network():
    return random_chain(0, sizes=(6, 8, 4))


@pytest.fixture(scope="module")
def data(network):
    """Sixty samples, every sixth with a wrong label."""
    images, labels = labelled(network, 60, scale=0.5)
    labels[::6] = (labels[::6] + 1) % 4
    return images, labels
