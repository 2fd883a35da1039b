"""What network a claim speaks of, in words."""

from __future__ import annotations

import numpy as np

from lipcert.network.graph import Network
from lipcert.network.linear import coefficients, offset
from lipcert.network.operators import Affine


def statement(network: Network) -> str:
    """Return the function that every `verified` claim about a network is about, in one line.

    It is the network as read, in real arithmetic. Numbers that the file holds are taken as they are; numbers that its
    graph computes (a folded batch norm, W / sigma) are real numbers known within intervals, never rounded silently.
    """
    inexact = sum(_inexact(node.op) for node in network.nodes if isinstance(node.op, Affine))
    exactly = f"the network in real arithmetic, with exactly the {network.dtype} numbers that the model holds"
    if not inexact:
        return exactly
    return f"{exactly}; {inexact} numbers that its graph computes are enclosed in intervals, none is rounded silently"


def _inexact(op: Affine) -> int:
    found = (numbers for numbers in (coefficients(op), offset(op)) if numbers is not None)
    return sum(int(np.count_nonzero(numbers.radius)) for numbers in found)
