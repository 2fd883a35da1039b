"""Hints for outputs that are numbers: what the radii say where they were perhaps meant in other units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lipcert.network.enclosure import Float

FEWEST = 20  # samples; fewer say nothing of what is usual


def hints(inputs: Float, radii: Float, eps: Sequence[float]) -> list[str]:
    """Return what is odd about radii of inputs: boxes that hold nearly all samples at once.

    Args:
        inputs: (N, ...) in the units of the network's input. radii: (n,) of each input for eps 1. eps: ascending.
    """
    if len(inputs) < FEWEST:
        return []
    flat = inputs.reshape(len(inputs), -1)
    spread = flat.max(axis=0) - flat.min(axis=0)
    wide = np.flatnonzero((spread > 0) & (radii * eps[0] >= spread))
    if not len(wide):
        return []
    first = int(wide[0])
    others = f", as those of {len(wide) - 1} further inputs" if len(wide) > 1 else ""
    return [
        f"at eps {eps[0]:g} the radius of input {first} is {radii[first] * eps[0]:.3g}, and all samples lie within "
        f"{spread[first]:.3g} of each other{others}: are --eps and --per-input in the units of the network's input?"
    ]
