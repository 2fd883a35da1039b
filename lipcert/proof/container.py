"""The container of certificates: one JSON document and named arrays in a safetensors file, read strictly.

Eight bytes little-endian length, a JSON header, one blob. The header's ``__metadata__`` has the single key ``lipcert``
whose text is the document; the arrays are the tensors, float64 or int64. Unknown or repeated keys, other dtypes, gaps,
overlaps, trailing bytes, NaN and infinity are all refused. Nothing in the file is executed.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from lipcert.proof.reasons import Malformed, Reason

MAX_HEADER = 16 * 2**20
Arrays = Mapping[str, npt.NDArray[Any]]
_DTYPES = {"F64": np.dtype("<f8"), "I64": np.dtype("<i8")}
_Read = TypeVar("_Read")


class NotFinite(ValueError):
    """A number is NaN, infinite or no bound."""


def pack(document: Mapping[str, str], arrays: Arrays) -> bytes:
    """Return the file's content."""
    header: dict[str, Any] = {"__metadata__": {"lipcert": json.dumps(document)}}
    blob = bytearray()
    for name, value in sorted(arrays.items()):
        array = np.asarray(value)
        code = "F64" if array.dtype.kind == "f" else "I64"
        data = np.ascontiguousarray(array, dtype=_DTYPES[code]).tobytes()
        header[name] = {
            "dtype": code,
            "shape": list(array.shape),
            "data_offsets": [len(blob), len(blob) + len(data)],
        }
        blob += data
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(blob)


def read(parse: Callable[[dict[str, str], dict[str, npt.NDArray[Any]]], _Read], content: bytes, name: str) -> _Read:
    """Return what `parse` makes of a file's document and arrays.

    Raises:
        Malformed: anything is out of order, or `parse` raises what wrong contents raise.
    """
    try:
        return parse(*_unpack(content))
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        OverflowError,
        struct.error,
    ) as error:
        reason = Reason.NOT_FINITE if isinstance(error, NotFinite) else Reason.MALFORMED
        raise Malformed(f"'{name}' is not a valid certificate file: {error}", reason) from None


def require(condition: bool, message: str) -> None:
    """Raise ValueError unless a condition holds."""
    if not condition:
        raise ValueError(message)


def require_digest(document: Mapping[str, str], key: str) -> None:
    """Raise ValueError unless a field is a SHA-256 in lower-case hex."""
    digest = document[key]
    require(len(digest) == 64 and set(digest) <= set("0123456789abcdef"), f"{key} is not a SHA-256 in hex")


def number(document: Mapping[str, str], key: str) -> float:
    """Return a finite, non-negative number from its hexadecimal form; raises ValueError where it is none."""
    value = float.fromhex(document[key])
    require(value.hex() == document[key], f"the {key} is not in normal hexadecimal form")
    if not (math.isfinite(value) and value >= 0):
        raise NotFinite(f"a {key} is finite and not negative, not {value}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    require(len(set(keys)) == len(keys), "a key stands twice")
    return dict(pairs)


def _no_constant(text: str) -> Any:
    raise NotFinite(f"{text} is not a number")


def _json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)


def _unpack(content: bytes) -> tuple[dict[str, str], dict[str, npt.NDArray[Any]]]:
    require(len(content) >= 8, "the file is too short")
    (length,) = struct.unpack("<Q", content[:8])
    require(length <= MAX_HEADER and 8 + length <= len(content), "the header is cut off")
    header = _json(content[8 : 8 + length].decode("utf-8"))
    metadata = header.pop("__metadata__")
    require(set(metadata) == {"lipcert"}, "the metadata has unknown keys")
    document = _json(metadata["lipcert"])
    require(all(isinstance(value, str) for value in document.values()), "a field is not text")
    return document, _arrays(header, memoryview(content)[8 + length :])


def _arrays(header: dict[str, Any], blob: memoryview) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays that the header lays out; they fill the blob without gap or overlap."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    position = 0
    for name, entry in sorted(header.items(), key=lambda item: (item[1]["data_offsets"], item[0])):
        require(set(entry) == {"dtype", "shape", "data_offsets"}, f"'{name}' has unknown keys")
        require(entry["dtype"] in _DTYPES, f"'{name}' is neither float64 nor int64")
        shape, (begin, end) = entry["shape"], entry["data_offsets"]
        require(all(type(n) is int and n >= 0 for n in (*shape, begin, end)), f"'{name}' has a bad shape")
        require(begin == position and end <= len(blob), f"'{name}' leaves a gap or overlaps")
        require(end - begin == 8 * math.prod(shape), f"'{name}' has the wrong length")
        array = np.frombuffer(blob[begin:end], dtype=_DTYPES[entry["dtype"]]).reshape(shape)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise NotFinite(f"'{name}' has NaN or infinite entries")
        arrays[name] = array
        position = end
    require(position == len(blob), "bytes are left over at the end")
    return arrays
