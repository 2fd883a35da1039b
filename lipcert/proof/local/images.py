"""How nodes are laid out as images: (height, width, channels). Nodes that are no images are images of one place."""

from __future__ import annotations

import numpy as np

from lipcert.network.enclosure import Float
from lipcert.network.graph import Shape
from lipcert.proof.local.entries import Places


def image_shape(shape: Shape) -> tuple[int, int, int]:
    """Return (height, width, channels) of a node as an image."""
    if len(shape) == 3:
        return shape[1], shape[2], shape[0]
    return 1, 1, int(np.prod(shape, dtype=np.int64))


def laid_out(values: Float, shape: Shape) -> Float:
    """Return numbers of a node (size,) as (height, width, channels)."""
    height, width, channels = image_shape(shape)
    return np.ascontiguousarray(np.moveaxis(values.reshape(channels, height, width), 0, 2))


def by_neighbourhood(rows: Places, shape: Shape, side: int) -> Places:
    """Return an order of positions (S,) in which neighbours follow each other: by blocks of side x side places."""
    height, width, channels = image_shape(shape)
    _, y, x = np.unravel_index(rows, (channels, height, width))
    row, column = y // side, x // side
    there = np.where(row % 2 == 0, column, -column)  # to and fro: the next block is a neighbour too
    return np.lexsort((rows, x, y, there, row))
