"""Images that are read when they are needed: block by block, from a file, a folder or a data set.

A `Stream` reads like an array of float32 images in raw input units, but holds only what it reads from. So 50,000
images cost no more memory than one batch of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lipcert.errors import UsageError

Images = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Shape = tuple[int, ...]

BLOCK_NUMBERS = 2**21  # numbers that a pass over all images holds at once


class Raw(Protocol):
    """Numbers as they are stored: an array, a mapped file, or something that decodes images when asked."""

    @property
    def shape(self) -> Shape:
        """(N, ...)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers, the same for all images."""

    def __getitem__(self, rows: Any, /) -> npt.NDArray[Any]:
        """Return the images at some positions (a (n,) int64 array), as an (n, ...) array of `dtype`."""


@dataclass(frozen=True, eq=False)
class Stream:
    """The first N images of a source, in raw input units; indexed by a number, a slice or an array of positions.

    Attributes:
        raw: where they come from.
        shape: (N, ...) of what is given out.
        scale: factor on the stored numbers; None for 1/255 with uint8 and 1 with everything else.
        move: brings scaled images (n, ...) to the order of the axes of `shape`.
    """

    raw: Raw
    shape: Shape
    scale: float | None = None
    move: Callable[[Images], Images] | None = None

    dtype = np.dtype(np.float32)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Images:
        """Read images; raises UsageError where the source cannot be read any more."""
        if isinstance(rows, (int, np.integer)):
            one = range(len(self))[int(rows)]  # raises IndexError beyond the end
            image: Images = self[one : one + 1][0]
            return image
        picked = np.arange(len(self), dtype=np.int64)[rows]
        values = to_units(self.raw[picked], self.scale)
        moved = values if self.move is None else self.move(values)
        return np.ascontiguousarray(moved).reshape(len(picked), *self.shape[1:])

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return self[:].astype(self.dtype if dtype is None else dtype, copy=False)

    def first(self, count: int) -> Stream:
        """Return the first images only."""
        return replace(self, shape=(min(count, len(self)), *self.shape[1:]))

    def arranged(self, move: Callable[[Images], Images], shape: Shape) -> Stream:
        """Return the images (not arranged before) in another per-sample shape."""
        return replace(self, move=move, shape=(len(self), *shape))


@dataclass(frozen=True)
class Survey:
    """What one pass over float32 images found: their range, and whether numbers had to be rounded to float32."""

    low: float
    high: float
    rounded: bool


def to_units(raw: npt.NDArray[Any], scale: float | None) -> Images:
    """Return stored numbers as float32 in raw input units: a float64 product, rounded once."""
    with np.errstate(over="ignore", invalid="ignore"):
        if raw.dtype == np.uint8:
            table = (np.arange(256) * (1.0 / 255.0 if scale is None else scale)).astype(np.float32)
            scaled: Images = table[raw]
            return scaled
        if raw.dtype == np.float32 and scale is None:
            return np.asarray(raw)
        exact = raw.astype(np.float64)
        return (exact if scale is None else exact * scale).astype(np.float32)


def blocks(images: Images | Stream) -> Iterator[Images]:
    """Return all images, some at a time."""
    size = max(1, BLOCK_NUMBERS // max(1, math.prod(images.shape[1:])))
    return (images[start : start + size] for start in range(0, len(images), size))


def survey(raw: Raw, count: int, scale: float | None, name: str) -> Survey:
    """Look at the first `count` images once.

    Raises:
        UsageError: a number is NaN, infinite, or too large for float32.
    """
    low, high, rounded = math.inf, -math.inf, False
    size = max(1, BLOCK_NUMBERS // max(1, math.prod(raw.shape[1:])))
    for start in range(0, count, size):
        stored = raw[np.arange(start, min(start + size, count))]
        values = to_units(stored, scale)
        bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
        if bad.any():
            raise UsageError(
                f"image {start + int(bad.argmax())} of '{name}' has NaN or infinite values: repair the data"
            )
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        if scale is None and raw.dtype not in (np.uint8, np.float32):
            rounded = rounded or not np.array_equal(values, stored.astype(np.float64))
    return Survey(low, high, rounded)
