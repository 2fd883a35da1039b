r"""Linear functions of one node as columns, zero outside a rectangle of the image, sent through affine nodes.

A function of a convolution's output sees a window of its input, and neighbours see nearly the same window. So many
functions of neighbours share one rectangle, laid out with the functions last: (rows, columns, channels, S). Then every
step is a matrix product or an operation on long runs of memory, whatever the number of channels, and lines of
activations are the same for all columns. Nodes that are no images are images of one place.

Nothing here counts rounding: `drift` does, for all functions at once, in float64. Methods that only look take float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from lipcert.network.enclosure import Float
from lipcert.network.graph import Shape
from lipcert.network.operators import Conv, Dense, Scale
from lipcert.proof.local.affine import AffineStep
from lipcert.proof.local.entries import Places as Ints

DType = np.dtype[np.float64]  # or, where nothing is proved, of float32


@dataclass(frozen=True, eq=False)
class Tile:
    """S linear functions of a node.

    Attributes:
        values: (h, w, C, S) coefficients, all others are zero; contiguous.
        top, left: where the rectangle starts; it is inside the image.
        shape: of the node.
    """

    values: Float
    top: int
    left: int
    shape: Shape

    @property
    def rows(self) -> Float:
        """(h w C, S) coefficients."""
        return self.values.reshape(-1, self.values.shape[3])

    def seen(self, image: Float) -> Float:
        """Return (h w C,) what the rectangle shows of an image laid out by `laid_out`, in the values' dtype."""
        h, w = self.values.shape[:2]
        part = image[self.top : self.top + h, self.left : self.left + w]
        return np.ascontiguousarray(part, dtype=self.values.dtype).reshape(-1)

    def like(self, values: Float) -> Tile:
        """Return functions with other coefficients in the same rectangle."""
        return Tile(values.reshape(*self.values.shape[:3], -1), self.top, self.left, self.shape)

    def full(self) -> Float:
        """Return (size of the node, S) coefficients, in the order of the node's entries."""
        height, width, channels = _places(self.shape)
        h, w, _, count = self.values.shape
        if (h, w) == (1, 1) == (height, width):
            return self.rows
        found = np.zeros((channels, height, width, count), dtype=self.values.dtype)
        found[:, self.top : self.top + h, self.left : self.left + w] = np.moveaxis(self.values, 2, 0)
        return found.reshape(-1, count)

    def plus(self, other: Tile) -> Tile:
        """Return the sums of functions, entry by entry."""
        if self.values.shape == other.values.shape and (self.top, self.left) == (other.top, other.left):
            return self.like(self.values + other.values)
        parts = (self, other)
        top, left = min(p.top for p in parts), min(p.left for p in parts)
        bottom, right = (
            max(s + p.values.shape[k] for s, p in zip((at, too), parts, strict=True))
            for k, at, too in ((0, self.top, other.top), (1, self.left, other.left))
        )
        found = np.zeros((bottom - top, right - left, *self.values.shape[2:]), dtype=self.values.dtype)
        for part in parts:
            (h, w), y, x = part.values.shape[:2], part.top - top, part.left - left
            found[y : y + h, x : x + w] += part.values
        return Tile(found, top, left, self.shape)


def _places(shape: Shape) -> tuple[int, int, int]:
    """Return (height, width, channels) of a node as an image."""
    if len(shape) == 3:
        return shape[1], shape[2], shape[0]
    return 1, 1, int(np.prod(shape, dtype=np.int64))


def laid_out(values: Float, shape: Shape) -> Float:
    """Return numbers of a node (size,) as (height, width, channels)."""
    height, width, channels = _places(shape)
    return np.ascontiguousarray(np.moveaxis(values.reshape(channels, height, width), 0, 2))


def whole(rows: Float, shape: Shape) -> Tile:
    """Return functions (size of the node, S) as a tile over all of it."""
    height, width, channels = _places(shape)
    values = np.moveaxis(rows.reshape(channels, height, width, -1), 0, 2)
    return Tile(np.ascontiguousarray(values), 0, 0, shape)


def entries(rows: Ints, shape: Shape, dtype: DType) -> Tile:
    """Return functions that are entries of a node, at positions (S,)."""
    height, width, channels = _places(shape)
    c, y, x = np.unravel_index(rows, (channels, height, width))
    top, left = int(y.min()), int(x.min())
    values = np.zeros((int(y.max()) - top + 1, int(x.max()) - left + 1, channels, len(c)), dtype=dtype)
    values[y - top, x - left, c, np.arange(len(c))] = 1.0
    return Tile(values, top, left, shape)


def by_neighbourhood(rows: Ints, shape: Shape, side: int) -> Ints:
    """Return an order of positions (S,) in which neighbours follow each other: by blocks of side x side places."""
    height, width, channels = _places(shape)
    _, y, x = np.unravel_index(rows, (channels, height, width))
    row, column = y // side, x // side
    there = np.where(row % 2 == 0, column, -column)  # to and fro: the next block is a neighbour too
    return np.lexsort((rows, x, y, there, row))


def pull_affine(step: AffineStep, tile: Tile) -> Tile:
    """Return functions of the input of an affine node: the transposed linear part of functions of its output."""
    op, dtype = step.op, tile.values.dtype
    matrix = step.transposed(dtype)
    if isinstance(op, Conv) and matrix is not None:
        return _pull_windows(op, matrix, tile, step.source)
    if isinstance(op, Dense) and matrix is not None:
        return whole(matrix @ tile.full(), step.source)
    if isinstance(op, Scale) and step.weight is not None:
        factor = laid_out(np.broadcast_to(step.weight, step.source).reshape(-1), step.source)
        return tile.like(tile.rows * tile.seen(factor)[:, None])
    if step.keeps_order:
        return whole(tile.full(), step.source)
    found = step.adjoint(np.ascontiguousarray(tile.full().T)[None])[0]
    return whole(found.T.astype(dtype, copy=False), step.source)


def _pull_windows(op: Conv, matrix: Float, tile: Tile, source: Shape) -> Tile:
    """Add up what the windows of a convolution take; matrix: (kernel rows * columns * in, out)."""
    (down, right), kernel, channels = op.stride, op.weight.shape[2:], op.weight.shape[1]
    h, w, _, count = tile.values.shape
    top, left = tile.top * down - op.padding[0][0], tile.left * right - op.padding[1][0]
    canvas = np.zeros(((h - 1) * down + kernel[0], (w - 1) * right + kernel[1], channels, count), dtype=matrix.dtype)
    for y in range(h):  # a row at a time stays in the cache
        parts = np.matmul(matrix, tile.values[y]).reshape(w, *kernel, channels, count)
        for i, j in product(range(kernel[0]), range(kernel[1])):
            canvas[y * down + i, j : j + right * (w - 1) + 1 : right] += parts[:, i, j]
    inner = canvas[max(0, -top) : max(0, source[1] - top), max(0, -left) : max(0, source[2] - left)]
    if not inner.size:  # these windows see padding only
        return Tile(np.zeros((1, 1, channels, count), dtype=matrix.dtype), 0, 0, source)
    return Tile(np.ascontiguousarray(inner), max(0, top), max(0, left), source)
