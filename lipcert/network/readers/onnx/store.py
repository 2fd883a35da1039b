"""Opening an ONNX file: parsing, external data, digest; every damage is one clear line."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import onnx.inliner

from lipcert.errors import UsageError
from lipcert.network.graph import Source

FLOATS = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.DOUBLE: "float64",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.BFLOAT16: "bfloat16",
}


def open_model(path: Path) -> tuple[Any, Source]:
    """Parse a file, with its external data in memory and its local functions written out.

    Returns:
        The `ModelProto`, and where it came from. The digest covers the bytes of the file and then those of its
        external data files, in the order of their names.

    Raises:
        UsageError: the file, or a part of it, is missing, damaged or not ONNX.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    try:
        model = onnx.load_model_from_string(data)
    except Exception:  # the parser's errors are not part of its interface
        raise UsageError(f"{path} is no ONNX model, or it is damaged: it cannot be parsed") from None
    if not model.graph.node or not model.graph.output:
        raise UsageError(f"{path} is no ONNX model, or it is cut off: its graph is empty")
    files: dict[str, bytes] = {}
    for tensor in _stored_tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _attach(tensor, path, files)
    digest = hashlib.sha256(data)
    for name in sorted(files):
        digest.update(files[name])
    count = sum(math.prod(t.dims) for t in model.graph.initializer if t.data_type in FLOATS)
    if model.functions:
        try:
            model = onnx.inliner.inline_local_functions(model)
        except Exception as error:  # the inliner raises bare C++ errors
            raise UsageError(f"{path}: its local functions cannot be written out: {error}") from None
    return model, Source(str(path), "onnx", digest.hexdigest(), count)


def stored_array(tensor: Any) -> Any:
    """Return a stored tensor as an array.

    Raises:
        UsageError: its bytes do not make up its shape.
    """
    try:
        return onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"the tensor '{tensor.name}' is damaged: {error}") from None


def _stored_tensors(model: Any) -> Iterator[Any]:
    yield from model.graph.initializer
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in nodes:
            yield from (a.t for a in node.attribute if a.type == onnx.AttributeProto.TENSOR)


def _attach(tensor: Any, path: Path, files: dict[str, bytes]) -> None:
    """Move a tensor's bytes from its external file into the tensor; `files` keeps what was read."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if location not in files:
        files[location] = _external(path, location)
    content = files[location]
    try:
        start = int(entries.get("offset", 0))
        length = int(entries.get("length", len(content) - start))
    except ValueError:
        raise UsageError(f"{path}: the place of tensor '{tensor.name}' in '{location}' is no number") from None
    if start < 0 or length < 0 or start + length > len(content):
        raise UsageError(
            f"{path}: tensor '{tensor.name}' lies at bytes {start} to {start + length} of '{location}', "
            f"which has {len(content)} bytes only; the file is cut off or belongs to another model"
        )
    tensor.raw_data = content[start : start + length]
    tensor.ClearField("external_data")
    tensor.data_location = onnx.TensorProto.DEFAULT


def _external(path: Path, location: str) -> bytes:
    folder = path.resolve().parent
    target = (folder / location).resolve()
    if not location or Path(location).is_absolute() or not target.is_relative_to(folder):
        raise UsageError(f"{path}: external data at '{location}' lies outside the folder of the model")
    try:
        return target.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot read its external data '{location}': {error.strerror}") from None
