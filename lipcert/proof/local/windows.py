"""Linear functions of an image node, or answers of its entries to symbols: coefficients in windows of the image.

Functions sent back (`columns`) and symbols sent forwards (`zonotope`) have coefficients of the same kind: a
convolution widens a window by less than a kernel, either way. S of them are laid out with S last, as (rows, columns,
channels, S), so that every step is a matrix product or an operation on long runs of memory, whatever the number of
channels. Neighbours share one rectangle: then images are the same for all of them. Others have windows of one size,
each in its own place, and look up their part of an image.

Nothing here counts rounding: `drift` and `zonotope` do, in float64. Methods that only look take float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lipcert.network.enclosure import Float
from lipcert.network.graph import Shape
from lipcert.proof.local.entries import Places
from lipcert.proof.local.images import image_shape
from lipcert.proof.local.region import Mask

DType = np.dtype[np.float64]  # or, where nothing is proved, of float32
Corner = tuple[Places, Places]
_DEARER = 3.0  # a coefficient in a window of its own than one in a rectangle, about


@dataclass(frozen=True, eq=False)
class Windows:
    """S functions of a node, or S symbols that it answers to.

    Attributes:
        values: (h, w, C, S) coefficients, contiguous; all others are zero, and so are those outside the image.
        at: rows and columns where windows start: (1,) each for one rectangle, inside the image, that all share; else
            (S,), outside the image too.
        shape: of the node.
    """

    values: Float
    at: Corner
    shape: Shape

    @staticmethod
    def of_entries(rows: Places, sizes: Float, shape: Shape, dtype: DType) -> Windows:
        """Return entries of a node at positions (S,) times some sizes (S,), each in a window of one place."""
        height, width, channels = image_shape(shape)
        c, y, x = np.unravel_index(rows, (channels, height, width))
        values = np.zeros((1, 1, channels, len(rows)), dtype=dtype)
        values[0, 0, c, np.arange(len(rows))] = sizes
        return Windows(values, (y, x), shape)

    @staticmethod
    def near(rows: Places, shape: Shape, dtype: DType, growth: float) -> Windows:
        """Return entries of a node at positions (S,): in one rectangle if they are neighbours.

        growth: by how many places windows will grow on their way. Coefficients of a rectangle cost less each, but there
        are more of them the farther entries are apart.
        """
        found = Windows.of_entries(rows, np.ones(len(rows)), shape, dtype)
        starts = [int(start.min()) for start in found.at]
        h, w = (int(start.max()) + 1 - first for start, first in zip(found.at, starts, strict=True))
        height, width, _ = image_shape(shape)
        if min(h + growth, height) * min(w + growth, width) > _DEARER * (1.0 + growth) ** 2:
            return found
        return found.placed((h, w), _corner(starts[0], starts[1]))

    @staticmethod
    def whole(rows: Float, shape: Shape) -> Windows:
        """Return the coefficients (size of the node, S) of all entries."""
        height, width, channels = image_shape(shape)
        values = np.moveaxis(rows.reshape(channels, height, width, -1), 0, 2)
        return Windows(np.ascontiguousarray(values), _corner(0, 0), shape)

    @property
    def is_shared(self) -> bool:
        """Whether all windows are one rectangle."""
        return len(self.at[0]) == 1

    @property
    def is_whole(self) -> bool:
        """Whether all windows are the image."""
        return self.is_shared and self.values.shape[:2] == image_shape(self.shape)[:2]

    @property
    def rows(self) -> Float:
        """(h w C, S) coefficients."""
        return self.values.reshape(-1, self.values.shape[3])

    def seen(self, image: Float) -> Float:
        """Return (h w C,) what a shared rectangle shows of an image (H, W, C), in the values' dtype."""
        (h, w), (y, x) = self.values.shape[:2], (int(start[0]) for start in self.at)
        return np.ascontiguousarray(image[y : y + h, x : x + w], dtype=self.values.dtype).reshape(-1)

    def like(self, values: Float) -> Windows:
        """Return other coefficients in windows of the same size at the same places."""
        return Windows(values.reshape(*self.values.shape), self.at, self.shape)

    def both_signs(self) -> Windows:
        """Return the 2 S functions and their negatives."""
        values = np.concatenate([self.values, -self.values], axis=3)
        at = self.at if self.is_shared else (np.tile(self.at[0], 2), np.tile(self.at[1], 2))
        return Windows(values, at, self.shape)

    def times(self, image: Float) -> Windows:
        """Return the coefficients times what the windows show of an image (H, W, C)."""
        if self.is_shared:
            return self.like(self.rows * self.seen(image)[:, None])
        found, flat = np.empty_like(self.values), self._table(image)
        for c, own in enumerate(flat):
            np.multiply(self.values[:, :, c], own[self.places], out=found[:, :, c])
        return self.like(found)

    def dot(self, image: Float) -> Float:
        """Return (S,) the coefficients times an image (H, W, C), added up."""
        if self.is_shared:
            found: Float = self.seen(image) @ self.rows
            return found
        if bool((image == image[0, 0]).all()):
            return np.asarray(np.einsum("hwcs,c->s", self.values, image[0, 0].astype(self.values.dtype)))
        tables = enumerate(self._table(image))
        parts = [np.einsum("hws,hws->s", self.values[:, :, c], own[self.places]) for c, own in tables]
        return np.asarray(np.sum(parts, axis=0))

    def shown(self, mask: Mask) -> tuple[Places, Places]:
        """Return where windows of their own show some entries (H, W, C): positions in `values`, and in the image."""
        tables = mask.reshape(-1, mask.shape[2]).T.copy()
        found, channels, count = [], mask.shape[2], self.values.shape[3]
        for c, own in enumerate(tables):
            some = np.flatnonzero(own[self.places] & (self.values[:, :, c] != 0))
            found.append(
                (
                    some // count * channels * count + c * count + some % count,
                    self.places.reshape(-1)[some] * channels + c,
                )
            )
        inner, outer = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return inner, outer

    def added(self, squared: bool) -> Float:
        """Return (H, W, C), in float64, what the coefficients at entries, squared or without signs, add up to."""
        height, width, channels = image_shape(self.shape)
        if self.is_shared:
            sums = np.einsum("ns,ns->n", self.rows, self.rows) if squared else np.abs(self.rows).sum(axis=1)
            total = sums.astype(np.float64).reshape(*self.values.shape[:3], 1)
            return Windows(total, self.at, self.shape).made_whole().values[..., 0]
        places, found = self.places.reshape(-1), np.empty((height * width, channels))
        for c in range(channels):
            part = self.values[:, :, c].reshape(-1)
            found[:, c] = np.bincount(places, part * part if squared else np.abs(part), minlength=height * width)
        return found.reshape(height, width, channels)

    def full(self) -> Float:
        """Return (size of the node, S) coefficients, in the order of the node's entries."""
        if image_shape(self.shape)[:2] == (1, 1):
            return self.rows
        return np.moveaxis(self.made_whole().values, 2, 0).reshape(-1, self.values.shape[3])

    def made_whole(self) -> Windows:
        """Return the same with the whole image for a window."""
        if self.is_whole:
            return self
        height, width, _ = image_shape(self.shape)
        return self.placed((height, width), _corner(0, 0))

    def placed(self, size: tuple[int, int], at: Corner) -> Windows:
        """Return the same in windows of another size elsewhere; what is outside of those is left out."""
        h, w, channels, count = self.values.shape
        found = np.zeros((*size, channels, count), dtype=self.values.dtype)
        for y, x, some in _moves(self.at[0] - at[0], self.at[1] - at[1]):
            (here, there), (in_row, out_row) = _overlap(y, h, size[0]), _overlap(x, w, size[1])
            found[there, out_row, :, some] = self.values[here, in_row, :, some]
        return Windows(found, at, self.shape)

    def among(self, start: int, shape: Shape) -> Windows:
        """Return the same at a node of some shape, of which this one's channels are those from `start` on."""
        h, w, channels, count = self.values.shape
        values = np.zeros((h, w, image_shape(shape)[2], count), dtype=self.values.dtype)
        values[:, :, start : start + channels] = self.values
        return Windows(values, self.at, shape)

    def plus(self, other: Windows) -> Windows:
        """Return the sums of coefficients, one by one."""
        same = all(np.array_equal(a, b) for a, b in zip(self.at, other.at, strict=True))
        if same and self.values.shape == other.values.shape:
            return self.like(self.values + other.values)
        at = np.minimum(self.at[0], other.at[0]), np.minimum(self.at[1], other.at[1])
        h, w = (
            int(max((part.at[k] - at[k]).max(initial=0) + part.values.shape[k] for part in (self, other)))
            for k in (0, 1)
        )
        return Windows(self.placed((h, w), at).values + other.placed((h, w), at).values, at, self.shape)

    def inside(self) -> Windows:
        """Return the same without what is outside the image."""
        height, width, _ = image_shape(self.shape)
        if self.is_shared:
            return self._cropped(height, width)
        (h, w), (y, x) = self.values.shape[:2], self.at
        if (y >= 0).all() and (x >= 0).all() and (y <= height - h).all() and (x <= width - w).all():
            return self
        rows, columns = self._lines(0), self._lines(1)
        there = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))[None]
        return self.like(self.values * there[:, :, None])

    def _cropped(self, height: int, width: int) -> Windows:
        """Return the part of a shared rectangle that is inside the image; a zero in a corner where there is none."""
        (h, w), (y, x) = self.values.shape[:2], (int(start[0]) for start in self.at)
        if y >= 0 and x >= 0 and y + h <= height and x + w <= width:
            return self
        top, left = min(max(0, y), height - 1), min(max(0, x), width - 1)
        bottom, right = max(top + 1, min(height, y + h)), max(left + 1, min(width, x + w))
        return self.placed((bottom - top, right - left), _corner(top, left))

    @cached_property
    def places(self) -> Places:
        """(h, w, S) positions in the image, counted by rows; of places outside it the nearest ones inside."""
        height, width, _ = image_shape(self.shape)
        return np.clip(self._lines(0), 0, height - 1)[:, None] * width + np.clip(self._lines(1), 0, width - 1)[None]

    def _lines(self, axis: int) -> Places:
        """(h or w, S) rows or columns of the image that windows show."""
        return np.arange(self.values.shape[axis])[:, None] + self.at[axis]

    def _table(self, image: Float) -> Float:
        """Return an image as (C, places), in the values' dtype."""
        return np.ascontiguousarray(image.reshape(-1, image.shape[2]).T, dtype=self.values.dtype)


def _corner(top: int, left: int) -> Corner:
    return np.array([top]), np.array([left])


def _moves(rows: Places, columns: Places) -> Iterator[tuple[int, int, slice | Places]]:
    """Yield the different moves among those of windows, and which windows make them."""
    y, x = int(rows[0]), int(columns[0])
    if len(rows) == 1 or ((rows == y).all() and (columns == x).all()):
        yield y, x, slice(None)  # which copies less than indices
        return
    for y, x in np.unique(np.stack([rows, columns]), axis=1).T.tolist():
        yield y, x, np.flatnonzero((rows == y) & (columns == x))


def _overlap(move: int, length: int, room: int) -> tuple[slice, slice]:
    """Return which part of something is inside a room when it is moved there, and where it is then."""
    start, stop = max(0, -move), min(length, room - move)
    return slice(start, max(start, stop)), slice(start + move, max(start, stop) + move)
