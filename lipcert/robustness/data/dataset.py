"""Labelled data: read from a file, a folder or a data set, checked, brought to the network's input shape.

A sample is the float32 array that the network is fed: the stored numbers times the scale, rounded once. Radii are in
the units of that array. What comes from a file is read block by block when it is needed (`streams`).
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lipcert.errors import UsageError
from lipcert.robustness.data.items import Items, is_items
from lipcert.robustness.data.npz import WHAT, feature_names, open_npz
from lipcert.robustness.data.streams import Images, Raw, Shape, Stream, blocks, survey, to_units

Labels = npt.NDArray[np.int64]

COLOURS = (3, 4)  # sizes of an axis that can only hold colours, where the others are larger
FORMS = f"{WHAT}, a folder of images, a pair (images, labels), a data set of such pairs, or a torch DataLoader"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples with their labels.

    Attributes:
        images: (N, ...) float32, finite, in raw input units: an array, or a stream that reads like one.
        labels: (N,) int64, not negative.
        name: where they come from, for people.
        sha256: digest of the file, or None where there is none.
        box: least and largest value that an input may have; attacks stay inside.
        notes: what was decided on the way (shown in the report).
        features: names of a sample's entries in C order, where they are known: then a sample is no picture.
    """

    images: Images | Stream
    labels: Labels
    name: str = "arrays"
    sha256: str | None = None
    box: tuple[float, float] = (0.0, 1.0)
    notes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the samples: the numbers of the images in C order, then the labels."""
        content = hashlib.sha256()
        for block in blocks(self.images):
            content.update(np.ascontiguousarray(block, dtype=block.dtype.newbyteorder("<")).data)
        content.update(np.ascontiguousarray(self.labels, dtype="<i8").data)
        return content.hexdigest()


def as_dataset(data: Any, scale: float | None = None, limit: int | None = None) -> Dataset:
    """Return data of any accepted form (`FORMS`) as a `Dataset`.

    Raises:
        UsageError: the data is of no such form, or wrong; `scale` is given for a `Dataset`.
    """
    if isinstance(data, Dataset):
        if scale is not None:
            raise UsageError("a Dataset is already in raw input units: give no scale with it")
        return _first(data, limit)
    if isinstance(data, (str, PathLike)):
        return load_data(Path(data), scale, limit)
    if isinstance(data, (tuple, list)) and len(data) == 2:
        return make_dataset(np.asarray(data[0]), np.asarray(data[1]), "arrays", scale, limit)
    if _is_loader(data):
        from lipcert.robustness.data.loaders import collect

        images, classes, notes = collect(data, limit)
        found = make_dataset(images, classes, "DataLoader", scale, limit)
        return replace(found, notes=notes + found.notes)
    if is_items(data):
        items = Items(data, _positive(limit))
        return make_dataset(items, items.labels, items.name, scale, limit)
    raise UsageError(f"the data is {FORMS}, not {type(data).__name__}")


def _is_loader(data: Any) -> bool:
    """Whether this is a torch DataLoader; torch is not imported for data that can be none."""
    torch_data = sys.modules.get("torch.utils.data")
    return torch_data is not None and isinstance(data, torch_data.DataLoader)


def load_data(path: str | PathLike[str], scale: float | None = None, limit: int | None = None) -> Dataset:
    """Open an ``.npz`` file or a folder of images; nothing is read into memory but the labels.

    Args:
        path: the file, or the folder with one sub-folder for each class.
        scale: factor on the stored numbers; default 1/255 for uint8, 1 for everything else.
        limit: only the first samples.

    Raises:
        UsageError: the file is missing, damaged or of another kind, or its arrays are wrong.
    """
    path = Path(path)
    if path.is_dir():
        from lipcert.robustness.data.folders import open_folder  # needs Pillow

        files, classes, notes = open_folder(path)
        found = make_dataset(files, classes, str(path), scale, limit)
        return replace(found, notes=notes + found.notes)
    images, labels, digest = open_npz(path)
    names = feature_names(path, math.prod(images.shape[1:]))
    return replace(make_dataset(images, labels, str(path), scale, limit), sha256=digest, features=names)


def make_dataset(
    images: Raw, labels: npt.NDArray[Any], name: str, scale: float | None = None, limit: int | None = None
) -> Dataset:
    """Check images and labels and bring them to raw input units; arguments and errors as in `load_data`."""
    if len(images.shape) < 2 or labels.ndim == 0 or 0 in images.shape:
        raise UsageError(f"'{name}' has no samples: images of shape {images.shape}, labels of shape {labels.shape}")
    labels = _labels(labels, name)
    if images.shape[0] != len(labels):
        raise UsageError(f"'{name}' has {images.shape[0]} images and {len(labels)} labels: there must be as many")
    labels = labels[: _positive(limit)]
    if images.dtype.kind not in "buif":
        raise UsageError(f"the images of '{name}' have type {images.dtype}: numbers are needed")
    if scale is not None and not (math.isfinite(scale) and scale > 0):
        raise UsageError(f"the scale is {scale}: a positive number is needed")
    box, notes = _range(images, len(labels), scale, name)
    stream = Stream(images, (len(labels), *images.shape[1:]), scale)
    held = type(images) is np.ndarray and images.dtype == np.float32 and scale is None
    return Dataset(stream[:] if held else stream, labels, name, None, box, notes)


def _range(images: Raw, count: int, scale: float | None, name: str) -> tuple[tuple[float, float], tuple[str, ...]]:
    """Return the range of inputs and notes: all of uint8, else [0, 1] where the values lie in it, else their own."""
    if images.dtype == np.uint8:
        ends = to_units(np.array([0, 255], dtype=np.uint8), scale)
        if not np.isfinite(ends).all():
            raise UsageError(f"the scale {scale} is too large for the images of '{name}'")
        return (0.0, float(ends[1])), ()
    seen = survey(images, count, scale, name)
    notes = (f"the images of '{name}' ({images.dtype}) were rounded to float32",) if seen.rounded else ()
    return ((0.0, 1.0) if seen.low >= 0.0 and seen.high <= 1.0 else (seen.low, seen.high)), notes


def _positive(limit: int | None) -> int | None:
    if limit is not None and limit < 1:
        raise UsageError(f"the limit is {limit}: at least one sample is needed")
    return limit


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
            f"{classes} outputs, 0 to {classes - 1}{_counted(dataset.labels, classes)}"
        )
    given = dataset.images.shape[1:]
    move, note = _move(given, shape, dataset.name)
    images = dataset.images
    if isinstance(images, Stream):
        images = images if given == shape else images.arranged(move, shape)
    else:
        images = np.ascontiguousarray(move(images).reshape(len(dataset), *shape))
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
        f"images of shape {given} in '{name}' do not fit the network's input {shape}: {_remedy(given, shape)}"
    )


def _counted(labels: Labels, classes: int) -> str:
    """Say where labels seem to be counted from 1."""
    ends = int(labels.min()), int(labels.max())
    return "; the labels look counted from 1: subtract 1" if ends == (1, classes) else ""


def _remedy(given: Shape, shape: Shape) -> str:
    """Say what to do with images that do not fit."""
    flat = len(_bare(shape)) <= 1 and math.prod(given) == math.prod(shape)
    if len(given) == 3 and (flat or (given[-1], *given[:-1]) == shape):
        return "they look like channels last (HWC): transpose them with images.transpose(0, 3, 1, 2)"
    if len(given) == 3 and (*given[1:], given[0]) == shape:
        return "they look like channels first (CHW): transpose them with images.transpose(0, 2, 3, 1)"
    return "store them in that shape"


def _bare(shape: Shape) -> Shape:
    return tuple(size for size in shape if size != 1)


def _first(dataset: Dataset, limit: int | None) -> Dataset:
    if _positive(limit) is None or limit is None:
        return dataset
    images = dataset.images.first(limit) if isinstance(dataset.images, Stream) else dataset.images[:limit]
    return replace(dataset, images=images, labels=dataset.labels[:limit])


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
