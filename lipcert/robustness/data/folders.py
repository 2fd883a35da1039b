"""A folder with one sub-folder of PNG or JPEG images for each class.

Classes are numbered in the order of their sorted names, as is usual. Samples go round the classes, the first image of
each and then the second, so that the first N of them show all classes. Images are decoded when they are needed. All
must have one size and one kind (grey or colour): nothing is resized or converted, that would be another input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from lipcert.errors import UsageError
from lipcert.robustness.data.streams import Shape

SUFFIXES = (".png", ".jpg", ".jpeg")
CHANNELS = {"L": 1, "RGB": 3}  # modes of Pillow
NAMED = 12  # classes that the note names
_WHAT = f"a folder with one sub-folder for each class, of images that end in {', '.join(SUFFIXES)}"


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Images in files: uint8, (N, C, H, W).

    Attributes:
        paths: of the N files. mode: of Pillow, that of all images.
        shape: of all images.
    """

    paths: Sequence[Path]
    mode: str
    shape: Shape

    dtype = np.dtype(np.uint8)

    def __getitem__(self, rows: Any) -> npt.NDArray[np.uint8]:
        """Decode some images; raises UsageError where one cannot be decoded."""
        found = np.empty((len(rows), *self.shape[1:]), dtype=np.uint8)
        for place, row in enumerate(rows):
            found[place] = self._decode(self.paths[row])
        return found

    def _decode(self, path: Path) -> npt.NDArray[np.uint8]:
        try:
            with Image.open(path) as image:
                mode, pixels = image.mode, np.asarray(image, dtype=np.uint8)
        except (OSError, SyntaxError, ValueError) as error:  # Pillow raises all three on damage
            raise UsageError(f"cannot read the image '{path}': {error}") from None
        height, width = self.shape[2:]
        if mode != self.mode or pixels.shape[:2] != (height, width):
            raise UsageError(f"the image '{path}' changed while it was in use")
        return pixels.reshape(height, width, -1).transpose(2, 0, 1)


def open_folder(path: str | PathLike[str]) -> tuple[ImageFiles, npt.NDArray[np.int64], tuple[str, ...]]:
    """List a folder and look at the head of every image.

    Returns:
        The images, their labels, and notes: what the classes are called, and what was left out.

    Raises:
        UsageError: there are no images, one is damaged, or they differ in size or kind.
    """
    folder = Path(path)
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise UsageError(f"cannot read the data '{folder}': it has no sub-folders; the data is {_WHAT}")
    found: list[tuple[int, int, Path]] = []
    others = 0
    for label, name in enumerate(names):
        entries = sorted(entry for entry in (folder / name).rglob("*") if entry.is_file())
        images = [entry for entry in entries if entry.suffix.lower() in SUFFIXES]
        others += sum(not entry.name.startswith(".") for entry in entries) - len(images)
        if not images:
            raise UsageError(f"the folder '{folder / name}' has no images: the data is {_WHAT}")
        found += [(place, label, image) for place, image in enumerate(images)]
    found.sort()
    paths, labels = [path for _, _, path in found], [label for _, label, _ in found]
    mode, size = _common(paths)
    files = ImageFiles(paths, mode, (len(paths), CHANNELS[mode], size[1], size[0]))
    return files, np.array(labels, dtype=np.int64), _notes(names, others)


def _common(paths: Sequence[Path]) -> tuple[str, tuple[int, int]]:
    """Return the mode and the size (width, height) of all images."""
    first = _head(paths[0])
    if first[0] not in CHANNELS:
        raise UsageError(f"the image '{paths[0]}' has the mode {first[0]}: save it as 8-bit grey or RGB")
    for path in paths:
        found = _head(path)
        if found != first:
            (mode, (width, height)), (other, (w, h)) = found, first
            raise UsageError(
                f"the image '{path}' is {width} x {height} {mode}, the first one '{paths[0]}' {w} x {h} {other}: "
                "bring all to one size and kind first"
            )
    return first


def _head(path: Path) -> tuple[str, tuple[int, int]]:
    try:
        with Image.open(path) as image:
            return image.mode, image.size
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise UsageError(f"cannot read the image '{path}': {error}") from None


def _notes(names: Sequence[str], others: int) -> tuple[str, ...]:
    shown = [f"{label} = {name}" for label, name in enumerate(names)]
    if len(shown) > NAMED:
        shown = [*shown[: NAMED - 1], "...", shown[-1]]
    notes = [f"classes are the sub-folders in sorted order: {', '.join(shown)}; samples go round the classes"]
    if others:
        notes.append(f"{others} files beside the images were left out")
    return tuple(notes)
