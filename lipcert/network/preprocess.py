"""Normalisation of the input, made part of the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lipcert.errors import UsageError
from lipcert.network.enclosure import Enclosure
from lipcert.network.graph import Network, Node, Shape
from lipcert.network.operators import Scale


def with_normalisation(network: Network, mean: Sequence[float] | float, std: Sequence[float] | float) -> Network:
    """Prepend y = (x - mean) / std, so that the input is in raw units.

    1 / std and mean / std are no float64 numbers in general; they are enclosed.

    Args:
        network: works on normalised inputs.
        mean, std: one number, or one for each channel (the first axis of the input, or the last one where only
            that has as many entries), as the real numbers that these floats are.

    Returns:
        The network on raw inputs of the same shape.

    Raises:
        UsageError: the numbers are not finite, std is not positive, or they do not fit the channels.
    """
    centre, spread = (np.atleast_1d(np.asarray(v, dtype=np.float64)) for v in (mean, std))
    if not (np.isfinite(centre).all() and np.isfinite(spread).all() and (spread > 0).all()):
        raise UsageError("mean and std must be finite numbers, and std positive")
    shape = _channel_shape(network.input_shape, max(centre.size, spread.size))
    if centre.ndim != 1 or spread.ndim != 1 or {centre.size, spread.size} - {1, int(np.prod(shape))}:
        raise UsageError(f"mean has {centre.size} and std {spread.size} numbers; give one, or one per channel")
    factor = Enclosure(spread.reshape(_own(shape, spread.size))).reciprocal()
    shift = -(Enclosure(centre.reshape(_own(shape, centre.size))) * factor)
    first, *others = network.nodes
    scale = Node("normalisation", Scale(factor, shift), (0,), network.input_shape)
    moved = (replace(n, inputs=tuple(i + 1 for i in n.inputs)) for n in others)
    note = f"the input is normalised first: (x - {_said(centre)}) / {_said(spread)}"
    return replace(network, nodes=(first, scale, *moved), notes=(*network.notes, note))


def _channel_shape(shape: Shape, count: int) -> Shape:
    """Return the shape that broadcasts `count` numbers over the channels of an input."""
    if count == 1:
        return (1,) * len(shape)
    if shape[0] == count:
        return (count, *(1,) * (len(shape) - 1))
    if shape[-1] == count:
        return (*(1,) * (len(shape) - 1), count)
    raise UsageError(f"mean and std have {count} numbers, but the input of shape {shape} has {shape[0]} channels")


def _own(shape: Shape, count: int) -> Shape:
    return shape if count > 1 else (1,) * len(shape)


def _said(numbers: np.ndarray) -> str:
    return f"{numbers[0]:g}" if numbers.size == 1 else "[" + ", ".join(f"{n:g}" for n in numbers) + "]"
