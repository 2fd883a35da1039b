"""Labelled data: read from a file, checked, brought to the network's input shape.

A sample is the float32 array that the network is fed: the numbers in the file times the scale, rounded once. Radii
are in the units of that array.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lipcert.errors import UsageError

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Shape = tuple[int, ...]

COLOURS = (3, 4)  # sizes of an axis that can only hold colours, where the others are larger
_WHAT = "an .npz file with the arrays 'images' (N, ...) and 'labels' (N,)"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples with their labels.

    Attributes:
        images: (N, ...) float32, finite, in raw input units.
        labels: (N,) int64, not negative.
        name: where they come from, for people.
        sha256: digest of the file, or None where there is none.
        box: least and largest value that an input may have; attacks stay inside.
        notes: what was decided on the way (shown in the report).
    """

    images: Images
    labels: Labels
    name: str = "arrays"
    sha256: str | None = None
    box: tuple[float, float] = (0.0, 1.0)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the samples: the numbers of the images in C order, then the labels."""
        content = hashlib.sha256(np.ascontiguousarray(self.images, dtype="<f4").data)
        content.update(np.ascontiguousarray(self.labels, dtype="<i8").data)
        return content.hexdigest()


def as_dataset(data: Any, scale: float | None = None, limit: int | None = None) -> Dataset:
    """Return data of any accepted form: a `Dataset`, a path, or a pair of arrays (images, labels).

    Raises:
        UsageError: the data is none of these, or wrong; `scale` is given for a `Dataset`.
    """
    if isinstance(data, Dataset):
        if scale is not None:
            raise UsageError("a Dataset is already in raw input units: give no scale with it")
        return _first(data, limit)
    if isinstance(data, (str, PathLike)):
        return load_data(Path(data), scale, limit)
    if isinstance(data, (tuple, list)) and len(data) == 2:
        return make_dataset(np.asarray(data[0]), np.asarray(data[1]), "arrays", scale, limit)
    raise UsageError(f"the data is {_WHAT}, or a pair (images, labels), not {type(data).__name__}")


def load_data(path: str | PathLike[str], scale: float | None = None, limit: int | None = None) -> Dataset:
    """Read an ``.npz`` file; pickled objects in it are refused.

    Args:
        path: the file.
        scale: factor on the numbers in the file; default 1/255 for uint8, 1 for everything else.
        limit: only the first samples.

    Raises:
        UsageError: the file is missing, damaged or of another kind, or its arrays are wrong.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        archive = np.load(io.BytesIO(content), allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise UsageError(f"'{path}' is a single array: the data is {_WHAT}")
        with archive:
            missing = [name for name in ("images", "labels") if name not in archive.files]
            if missing:
                found = ", ".join(archive.files) or "nothing"
                raise UsageError(f"'{path}' has no array '{missing[0]}' (it holds {found}): the data is {_WHAT}")
            images, labels = archive["images"], archive["labels"]
    except UsageError:
        raise
    except OSError as error:
        raise UsageError(f"cannot read the data '{path}': {error.strerror or error}") from None
    except Exception as error:  # what numpy and zipfile raise on damage is not part of their interface
        raise UsageError(f"cannot read the data '{path}': {_reason(error)}; the data is {_WHAT}") from None
    if not (isinstance(images, np.ndarray) and isinstance(labels, np.ndarray)):  # a member that is no array: bytes
        raise UsageError(f"cannot read the data '{path}': it is damaged; the data is {_WHAT}")
    return replace(make_dataset(images, labels, str(path), scale, limit), sha256=hashlib.sha256(content).hexdigest())


def _reason(error: Exception) -> str:
    """Say in our words why numpy could not read an archive."""
    text = str(error)
    if "Object arrays" in text:
        return "it holds pickled objects, which can run code when read"
    return (
        "it is not an .npz archive"
        if "pickle" in text
        else f"it is damaged ({[*text.splitlines(), type(error).__name__][0]})"
    )


def make_dataset(
    images: npt.NDArray[Any], labels: npt.NDArray[Any], name: str, scale: float | None, limit: int | None
) -> Dataset:
    """Check arrays and bring them to raw input units; arguments and errors as in `load_data`."""
    if images.ndim < 2 or labels.ndim == 0 or images.size == 0:
        raise UsageError(f"'{name}' has no samples: images of shape {images.shape}, labels of shape {labels.shape}")
    labels = _labels(labels, name)
    if len(images) != len(labels):
        raise UsageError(f"'{name}' has {len(images)} images and {len(labels)} labels: there must be as many")
    if limit is not None and limit < 1:
        raise UsageError(f"the limit is {limit}: at least one sample is needed")
    raw = images[:limit]
    if raw.dtype.kind not in "buif":
        raise UsageError(f"the images of '{name}' have type {raw.dtype}: numbers are needed")
    values, notes = _scaled(raw, scale, name)
    bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if bad.any():
        raise UsageError(f"image {int(bad.argmax())} of '{name}' has NaN or infinite values: repair the data")
    return Dataset(values, labels[:limit], name, None, _box(raw, values, scale), notes)


def fit(dataset: Dataset, shape: Shape, classes: int) -> Dataset:
    """Return the data in a network's per-sample input shape.

    Entries keep their order (C order) where the shapes differ only by axes of length 1 or where one of both is
    flat. Channels first and channels last are exchanged where an axis of 3 or 4 colours shows which is which.
    Everything else is refused: an order that is guessed wrong gives numbers about another network.

    Args:
        dataset: the data.
        shape: per-sample input shape of the network.
        classes: number of outputs of the network.

    Raises:
        UsageError: the images do not fit, or a label names no output.
    """
    worst = int(dataset.labels.argmax())
    if dataset.labels[worst] >= classes:
        raise UsageError(
            f"label {dataset.labels[worst]} of sample {worst} of '{dataset.name}' is out of range: the network has "
            f"{classes} outputs, 0 to {classes - 1}"
        )
    given = dataset.images.shape[1:]
    move, note = _move(given, shape, dataset.name)
    images = np.ascontiguousarray(move(dataset.images).reshape(len(dataset), *shape))
    return replace(dataset, images=images, notes=dataset.notes + ((note,) if note else ()))


def _move(given: Shape, shape: Shape, name: str) -> tuple[Callable[[Images], Images], str]:
    """Return the map from images of one shape to the order of another, and a note."""
    bare, wanted = _bare(given), _bare(shape)
    if bare == wanted:
        return (lambda x: x), ""
    if math.prod(given) == math.prod(shape):
        if len(given) == len(shape) == 3:
            first, last = given[0], given[-1]
            if first in COLOURS and (*given[1:], first) == shape:
                return (lambda x: x.transpose(0, 2, 3, 1)), f"images of shape {given} were turned to channels last"
            if last in COLOURS and (last, *given[:-1]) == shape:
                return (lambda x: x.transpose(0, 3, 1, 2)), f"images of shape {given} were turned to channels first"
        channels_last = len(bare) == 3 and bare[-1] in COLOURS
        if len(wanted) <= 1 and not channels_last:
            return (lambda x: x), f"images of shape {given} were flattened, rows last to first axis (C order)"
        if len(bare) <= 1:
            return (lambda x: x), f"flat images were given the shape {shape} in C order"
    raise UsageError(
        f"images of shape {given} in '{name}' do not fit the network's input {shape}: store them in that shape"
    )


def _bare(shape: Shape) -> Shape:
    return tuple(size for size in shape if size != 1)


def _first(dataset: Dataset, limit: int | None) -> Dataset:
    if limit is None:
        return dataset
    if limit < 1:
        raise UsageError(f"the limit is {limit}: at least one sample is needed")
    return replace(dataset, images=dataset.images[:limit], labels=dataset.labels[:limit])


def _labels(labels: npt.NDArray[Any], name: str) -> Labels:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise UsageError(f"the labels of '{name}' have shape {labels.shape}: one whole number per sample is needed")
    whole = labels.dtype.kind in "iu" or (labels.dtype.kind == "f" and bool((labels == np.floor(labels)).all()))
    if not whole or not np.isfinite(labels).all():
        raise UsageError(f"the labels of '{name}' are not whole numbers ({labels.dtype})")
    low, high = labels.min(), labels.max()
    if low < 0 or high >= 2**31:
        raise UsageError(f"label {low if low < 0 else high} in '{name}' is out of range: labels count from 0")
    return labels.astype(np.int64)


def _scaled(raw: npt.NDArray[Any], scale: float | None, name: str) -> tuple[Images, tuple[str, ...]]:
    """Return float32 images; float64 products, rounded once."""
    if scale is not None and not (math.isfinite(scale) and scale > 0):
        raise UsageError(f"the scale is {scale}: a positive number is needed")
    with np.errstate(over="ignore", invalid="ignore"):
        if raw.dtype == np.uint8:
            table = (np.arange(256) * (1.0 / 255.0 if scale is None else scale)).astype(np.float32)
            return table[raw], ()
        exact = raw.astype(np.float64) if raw.dtype != np.float32 or scale is not None else raw
        values = (exact if scale is None else exact * scale).astype(np.float32)
    if scale is None and not np.array_equal(values, exact, equal_nan=True):
        return values, (f"the images of '{name}' ({raw.dtype}) were rounded to float32",)
    return values, ()


def _box(raw: npt.NDArray[Any], values: Images, scale: float | None) -> tuple[float, float]:
    """Return the range of inputs: all of uint8, else [0, 1] where the values lie in it, else their own range."""
    if raw.dtype == np.uint8:
        return 0.0, float(np.float32(1.0 if scale is None else 255 * scale))
    low, high = float(values.min()), float(values.max())
    return (0.0, 1.0) if low >= 0.0 and high <= 1.0 else (low, high)
