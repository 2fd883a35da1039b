"""Arrays of an ``.npz`` file, mapped into memory and not read.

A member that is stored as it is (`numpy.savez`) is mapped where it stands in the archive; a compressed one is
unpacked once to a nameless temporary file, which vanishes with the process. Both are read through once, so that the
archive's checksums hold. Pickled objects are refused. The file must not change while it is in use.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import struct
import tempfile
import zipfile
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from lipcert.errors import UsageError, one_line

IMAGES, LABELS, FEATURES = "images", "labels", "features"
WHAT = "an .npz file with the arrays 'images' (N, ...) and 'labels' (N,)"

_LOCAL_HEADER = 30  # bytes before the name of a member; the lengths of name and extra field stand at byte 26
_CHUNK = 2**20


def open_npz(path: str | PathLike[str]) -> tuple[npt.NDArray[Any], npt.NDArray[Any], str]:
    """Open a file.

    Returns:
        Images as they are stored, mapped; labels, in memory; SHA-256 of the file.

    Raises:
        UsageError: the file is missing, damaged or of another kind.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            _require_archive(file, path)
            with zipfile.ZipFile(file) as archive:
                _require_members(archive, path)
                images = _mapped(archive, file, _member(archive, IMAGES))
                with archive.open(_member(archive, LABELS)) as stored:
                    labels = np.lib.format.read_array(stored, allow_pickle=False)
                    _read_through(stored)
    except UsageError:
        raise
    except OSError as error:
        raise UsageError(f"cannot read the data '{path}': {error.strerror or error}") from None
    except Exception as error:  # what numpy and zipfile raise on damage is not part of their interface
        raise UsageError(f"cannot read the data '{path}': {_reason(error)}; the data is {WHAT}") from None
    return images, labels, digest


def feature_names(path: str | PathLike[str], entries: int) -> tuple[str, ...]:
    """Return the names of a sample's entries from the array 'features' of a file, nothing where there is none.

    Raises:
        UsageError: the array holds something else than one word for each of the `entries`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if FEATURES not in (name.removesuffix(".npy") for name in archive.namelist()):
                return ()
            with archive.open(_member(archive, FEATURES)) as stored:
                names = np.lib.format.read_array(stored, allow_pickle=False)
                _read_through(stored)
    except Exception as error:  # as in `open_npz`
        raise UsageError(f"cannot read the names of features in '{path}': {_reason(error)}") from None
    if names.dtype.kind != "U" or names.shape != (entries,):
        raise UsageError(f"the array '{FEATURES}' of '{path}' must hold one name for each of the {entries} entries")
    return tuple(one_line(str(name)) for name in names)


def _require_archive(file: IO[bytes], path: Path) -> None:
    file.seek(0)
    magic = file.read(len(np.lib.format.MAGIC_PREFIX))
    if magic == np.lib.format.MAGIC_PREFIX:
        raise UsageError(f"'{path}' is a single array: the data is {WHAT}")
    if not zipfile.is_zipfile(file):
        cut = magic.startswith(b"PK")
        reason = "its end is missing" if cut else "it is not an .npz archive"
        raise UsageError(f"cannot read the data '{path}': {reason}; the data is {WHAT}")


def _require_members(archive: zipfile.ZipFile, path: Path) -> None:
    there = [name.removesuffix(".npy") for name in archive.namelist()]
    missing = [name for name in (IMAGES, LABELS) if name not in there]
    if missing:
        found = ", ".join(there) or "nothing"
        text = f"'{path}' has no array '{missing[0]}' (it holds {found}): the data is {WHAT}"
        raise UsageError(text + ("; --task regression needs no labels" if missing == [LABELS] else ""))


def _member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    with suppress(KeyError):
        return archive.getinfo(f"{name}.npy")
    return archive.getinfo(name)


def _mapped(archive: zipfile.ZipFile, file: IO[bytes], member: zipfile.ZipInfo) -> npt.NDArray[Any]:
    """Return an array of an archive without reading it into memory."""
    with archive.open(member) as stored:
        shape, fortran, dtype = _header(stored)
        start = stored.tell()
        if dtype.hasobject:
            raise ValueError("Object arrays")
        if member.compress_type == zipfile.ZIP_STORED:
            _read_through(stored)
            home, offset = file, _data_offset(file, member) + start
        else:
            home, offset = _unpacked(stored), 0
    if not shape or not math.prod(shape):
        return np.zeros(shape, dtype)
    try:
        return np.memmap(home, dtype, "r", offset, shape, "F" if fortran else "C")
    finally:
        if home is not file:  # the mapping keeps a handle of its own
            home.close()


def _header(stored: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    match np.lib.format.read_magic(stored):
        case (1, 0):
            return np.lib.format.read_array_header_1_0(stored)
        case (2, 0):
            return np.lib.format.read_array_header_2_0(stored)
        case version:
            raise ValueError(f"an array is written in version {version} of the format")


def _data_offset(file: IO[bytes], member: zipfile.ZipInfo) -> int:
    file.seek(member.header_offset)
    name, extra = struct.unpack("<HH", file.read(_LOCAL_HEADER)[26:30])
    return int(member.header_offset + _LOCAL_HEADER + name + extra)


def _unpacked(stored: IO[bytes]) -> IO[bytes]:
    home: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed when it is mapped
    shutil.copyfileobj(stored, home, _CHUNK)
    home.flush()
    return home


def _read_through(stored: IO[bytes]) -> None:
    """Read to the end: zipfile compares the checksum there."""
    while stored.read(_CHUNK):
        pass


def _reason(error: Exception) -> str:
    """Say in our words why an archive could not be read."""
    text = str(error)
    if "Object arrays" in text:
        return "it holds pickled objects, which can run code when read"
    return f"it is damaged ({[*text.splitlines(), type(error).__name__][0]})"
