"""Data sets that give one sample at a time, as those of torch and of Hugging Face's ``datasets`` do.

Anything with ``__len__`` and ``__getitem__`` whose items begin with (image, label), or are mappings with the keys
``image`` (or ``img``) and ``label``. An image is an array, a tensor, or a picture of Pillow, which counts as uint8
(C, H, W).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from lipcert.errors import UsageError, one_line
from lipcert.robustness.data.streams import Shape

IMAGE_KEYS, LABEL_KEYS = ("image", "img"), ("label", "labels", "target")
ASKED_TWICE = 16  # images that show whether a data set gives the same ones again


def is_items(data: Any) -> bool:
    """Whether an object gives one sample at a time; arrays and mappings do not."""
    kinds = (np.ndarray, Mapping, str, bytes)
    return hasattr(data, "__len__") and hasattr(data, "__getitem__") and not isinstance(data, kinds)


class Items:
    """The images of a data set, read when they are needed.

    Args of the constructor:
        data: the data set; gone through once. limit: only the first samples.

    Attributes:
        labels: of the samples, as the data set gives them.
        shape: (N, ...). dtype: of the numbers.

    Raises:
        UsageError: it is empty, an item has another form, images differ in shape or type, or it gives other images
            when it is asked again.
    """

    def __init__(self, data: Any, limit: int | None = None) -> None:
        self._data, self.name = data, type(data).__name__
        count = len(data) if limit is None else min(limit, len(data))
        if count < 1:
            raise UsageError(f"the data set '{self.name}' has no samples")
        first = self._item(0)[0]
        self.shape: Shape = (count, *first.shape)
        self.dtype: np.dtype[Any] = first.dtype
        self.labels = np.array([self._checked(row)[1] for row in range(count)])
        for row in range(0, count, max(1, count // ASKED_TWICE)):
            if not np.array_equal(self._item(row)[0], self._item(row)[0], equal_nan=True):
                raise UsageError(
                    f"image {row} of the data set '{self.name}' is another one each time: switch its random "
                    "transforms off, certification is about fixed inputs"
                )

    def __getitem__(self, rows: Any) -> npt.NDArray[Any]:
        return np.stack([self._checked(int(row))[0] for row in rows])

    def _checked(self, row: int) -> tuple[npt.NDArray[Any], Any]:
        image, label = self._item(row)
        if image.shape != self.shape[1:] or image.dtype != self.dtype:
            raise UsageError(
                f"image {row} of the data set '{self.name}' has shape {image.shape} and type {image.dtype}, the first "
                f"one {self.shape[1:]} and {self.dtype}: all must be alike"
            )
        return image, label

    def _item(self, row: int) -> tuple[npt.NDArray[Any], Any]:
        try:
            image, label = _parts(self._data[row])
            return as_pixels(image), _number(label)
        except (TypeError, ValueError, KeyError, IndexError) as error:
            raise UsageError(
                f"item {row} of the data set '{self.name}' is no pair (image, label): {one_line(error)}"
            ) from None


def as_pixels(image: Any) -> npt.NDArray[Any]:
    """Return an image as an array; a picture of Pillow as uint8, channels first."""
    if hasattr(image, "detach"):  # a tensor
        image = image.detach().cpu()
    pixels = np.asarray(image)
    if hasattr(image, "getbands") and pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1))
    if pixels.dtype.kind not in "buif":
        raise TypeError(f"the image has type {pixels.dtype}, numbers are needed")
    return pixels


def _parts(item: Any) -> tuple[Any, Any]:
    if not isinstance(item, Mapping):
        if not (isinstance(item, (tuple, list)) and len(item) >= 2):
            raise TypeError(f"it is a {type(item).__name__}")
        return item[0], item[1]  # what follows is left out
    found = [next((item[key] for key in keys if key in item), None) for keys in (IMAGE_KEYS, LABEL_KEYS)]
    if found[0] is None or found[1] is None:
        raise KeyError(f"it has the keys {', '.join(map(str, item))}; {IMAGE_KEYS[0]} and {LABEL_KEYS[0]} are needed")
    return found[0], found[1]


def _number(label: Any) -> Any:
    if hasattr(label, "detach"):
        label = label.detach().cpu()
    return label.item() if hasattr(label, "item") and np.size(label) == 1 else label
