"""Damages files of every kind that lipcert reads, and looks for anything but a clean refusal.

    python -m benchmarks.fuzz [--minutes 1] [--seed 0] [--target NAME ...]

A clean refusal is a `LipcertError` of one printable line. Everything else that a reader raises is a crash; its edits
are printed, so that it can be had again, and the exit code is 1. The process may take 3 GiB more than it has, so that
sizes which a file makes up are found out. The edits are data, (what, where in [0, 1), number), so that tests can shrink
them.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import struct
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lipcert.bounds.engine import bound
from lipcert.errors import LipcertError
from lipcert.network.readers.onnx.file import read_onnx
from lipcert.proof import Certificate, check
from lipcert.robustness.data.dataset import load_data
from lipcert.testing.build import matrices, mlp

Edit = tuple[str, float, int]
MEMORY = 3 * 2**30
NUMBERS = (0, 1, -1, 2, 3, 7, 100, 255, 2**31 - 1, -(2**31), 2**40, 2**62, 2**63 - 1, -(2**63))


# --- damage of bytes ------------------------------------------------------------------------------------------


def _span(content: bytes, at: float, number: int) -> tuple[int, int]:
    begin = int(at * len(content))
    return begin, begin + 1 + number % 16


BYTES: Mapping[str, Callable[[bytes, float, int], bytes]] = {
    "flip a bit": lambda c, at, n: _put(c, at, bytes(b ^ 1 << n % 8 for b in c[int(at * len(c)) :][:1])),
    "set a byte": lambda c, at, n: _put(c, at, bytes([n % 256])),
    "set eight bytes": lambda c, at, n: _put(c, at, struct.pack("<q", NUMBERS[n % len(NUMBERS)])),
    "cut the end off": lambda c, at, n: c[: int(at * len(c))],
    "remove": lambda c, at, n: c[: _span(c, at, n)[0]] + c[_span(c, at, n)[1] :],
    "repeat": lambda c, at, n: c[: _span(c, at, n)[1]] + c[_span(c, at, n)[0] :],
    "a number in text": lambda c, at, n: _number(c, at, n),
}


def _put(content: bytes, at: float, put: bytes) -> bytes:
    place = int(at * len(content))
    return content[:place] + put + content[place + len(put) :]


def _number(content: bytes, at: float, number: int) -> bytes:
    """Replace the next run of digits."""
    begin = int(at * len(content))
    while begin < len(content) and not content[begin : begin + 1].isdigit():
        begin += 1
    end = begin
    while end < len(content) and content[end : end + 1].isdigit():
        end += 1
    texts = [str(n) for n in NUMBERS] + ["1e400", "1.5", "null", "[]", "{}", '""', "NaN", "9" * 5000]
    return content[:begin] + texts[number % len(texts)].encode() + content[end:]


def damaged(content: bytes, edits: Sequence[Edit]) -> bytes:
    """Return a file after edits of its bytes."""
    for what, at, number in edits:
        content = BYTES[what](content, at, number)
    return content


def damaged_header(content: bytes, edits: Sequence[Edit]) -> bytes:
    """Return a file of the safetensors form after edits of its header, whose length is put right again."""
    (length,) = struct.unpack("<Q", content[:8])
    header = damaged(content[8 : 8 + length], edits)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def damaged_archive(content: bytes, edits: Sequence[Edit]) -> bytes:
    """Return a zip archive after edits of its members, whose checksums are put right again."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    names = list(members)
    for what, at, number in edits:
        name = names[int(at * len(names))]
        members[name] = damaged(members[name], [(what, at * len(names) % 1.0, number)])
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return made.getvalue()


# --- damage of ONNX graphs --------------------------------------------------------------------------------------

GRAPH = ("number", "number of an attribute", "size of a tensor", "type of a tensor", "operator", "input", "output",
         "drop a node", "swap nodes", "size of the input", "drop an attribute", "version")  # fmt: skip
OPERATORS = ("Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose", "Expand", "Flatten",
             "Gather", "Gemm", "GlobalAveragePool", "MatMul", "MaxPool", "Mul", "Pad", "PRelu", "ReduceMean", "Relu",
             "Reshape", "Resize", "Shape", "Slice", "Softmax", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
             "ConstantOfShape", "Range", "DepthToSpace", "TopK", "Max", "LeakyRelu", "ReduceSum", "Div")  # fmt: skip


def damaged_graph(content: bytes, edits: Sequence[Edit]) -> bytes:
    """Return an ONNX file after edits of its graph: wrong shapes, numbers, operators and names, in a valid file."""
    model = onnx.load_model_from_string(content)
    for what, at, number in edits:
        if model.graph.node:
            _edit_graph(model, what, at, number)
    return bytes(model.SerializeToString())


def _edit_graph(model: Any, what: str, at: float, number: int) -> None:
    graph = model.graph
    place = int(at * len(graph.node))
    node, size = graph.node[place], NUMBERS[number % len(NUMBERS)]
    if what == "drop a node":
        del graph.node[place]
    elif what == "swap nodes":
        other = graph.node[number % len(graph.node)]
        kept = type(node).FromString(node.SerializeToString())
        node.CopyFrom(other)
        other.CopyFrom(kept)
    elif what == "operator":
        node.op_type = OPERATORS[number % len(OPERATORS)]
    elif what == "version":
        model.opset_import[0].version = number % 30
    elif what == "size of the input":
        dims = graph.input[0].type.tensor_type.shape.dim
        dims[int(at * len(dims))].dim_value = size
    elif what in ("input", "output"):
        names = [name for n in graph.node for name in (*n.input, *n.output)]
        own = node.input if what == "input" else node.output
        own[number // 7 % len(own)] = names[number % len(names)]
    elif what in ("drop an attribute", "number of an attribute"):
        _edit_attribute(node, what, number, size)
    else:
        _edit_tensor(graph.initializer[int(at * len(graph.initializer))], what, number, size)


def _edit_attribute(node: Any, what: str, number: int, size: int) -> None:
    if not node.attribute:
        return
    attribute = node.attribute[number // 15 % len(node.attribute)]
    if what == "drop an attribute":
        node.attribute.remove(attribute)
    elif attribute.ints:
        attribute.ints[number // 30 % len(attribute.ints)] = size
    elif attribute.type == onnx.AttributeProto.FLOAT:
        attribute.f = (0.0, -1.0, 1e38, float("nan"), float("inf"))[number % 5]
    else:
        attribute.i = size


def _edit_tensor(tensor: Any, what: str, number: int, size: int) -> None:
    if what == "type of a tensor":
        tensor.data_type = number % 24
    elif what == "size of a tensor" and tensor.dims:
        tensor.dims[number // 15 % len(tensor.dims)] = size
    elif what == "number" and tensor.data_type in (TensorProto.FLOAT, TensorProto.INT64) and tensor.raw_data:
        whole = tensor.data_type == TensorProto.INT64
        array = np.frombuffer(tensor.raw_data, "<i8" if whole else "<f4").copy()
        array[number // 15 % len(array)] = size if whole else (0.0, 1e38, np.nan, np.inf, -1e-45)[number % 5]
        tensor.raw_data = array.tobytes()


# --- what is damaged ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """A kind of file and its reader.

    Attributes:
        suffix: of the file's name.
        content: a small valid file.
        damage: applies edits to it.
        kinds: the kinds of edits.
        read: reads a file, as a user's call does.
    """

    suffix: str
    content: Callable[[], bytes]
    damage: Callable[[bytes, Sequence[Edit]], bytes]
    kinds: Sequence[str]
    read: Callable[[Path], object]


@cache
def _certificate() -> bytes:
    return bound(_network(), "eclipse-fast", quantity="margins").certificate.to_bytes()


@cache
def _network() -> Any:
    return mlp(matrices(3, 4, 6, 5, 3))


def _check(path: Path) -> object:
    """Parse and check; a verdict that the claim holds is no crash (`benchmarks.mutations` judges verdicts)."""
    certificate = Certificate.load(path)
    check(certificate, _network())
    return certificate


def _model(nodes: Sequence[Any], shape: Sequence[Any], stored: Mapping[str, Any]) -> bytes:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", shape), ("y", None)))
    arrays = [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()]
    graph = helper.make_graph(list(nodes), "test", [x], [y], arrays)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def _node(op: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(op, inputs.split(), [output], **attributes)


def _floats(*shape: int) -> Any:
    return np.random.default_rng(5).standard_normal(shape).astype(np.float32)


@cache
def convolutional() -> bytes:
    """Return a small ONNX file with convolutions, batch norm, pooling and a dense layer."""
    nodes = [
        _node("Pad", "x widths", "padded", mode="reflect"),
        _node("Conv", "padded k b", "c", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2], group=1),
        _node("BatchNormalization", "c b b b var", "n", epsilon=1e-5),
        _node("LeakyRelu", "n", "r", alpha=0.1),
        _node("MaxPool", "r", "p", kernel_shape=[2, 2], strides=[1, 1], ceil_mode=0),
        _node("ConvTranspose", "p t", "u", strides=[2, 2], output_padding=[1, 1], dilations=[1, 1]),
        _node("AveragePool", "u", "a", kernel_shape=[2, 2], count_include_pad=1, pads=[0, 0, 1, 1]),
        _node("Flatten", "a", "f", axis=1),
        _node("Gemm", "f w v", "g", transB=1, alpha=0.5),
        _node("Softmax", "g", "y", axis=-1),
    ]
    stored = {
        "widths": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "k": _floats(2, 1, 3, 3), "b": _floats(2),
        "var": np.abs(_floats(2)) + 1, "t": _floats(2, 1, 2, 2), "w": _floats(3, 49), "v": _floats(3),
    }  # fmt: skip
    return _model(nodes, ["N", 1, 6, 6], stored)


@cache
def moving() -> bytes:
    """Return a small ONNX file that moves entries about, with shapes that it computes."""
    nodes = [
        _node("Shape", "x", "shape"),
        _node("Gather", "shape zero", "batch", axis=0),
        _node("Unsqueeze", "batch zeros", "first"),
        _node("Concat", "first rest", "target", axis=0),
        _node("Transpose", "x", "t", perm=[0, 2, 1]),
        _node("Reshape", "t target", "r"),
        _node("Slice", "r starts ends axes", "s"),
        _node("Expand", "s wide", "e"),
        _node("Resize", "e nothing scales", "z", mode="nearest", coordinate_transformation_mode="asymmetric",
              nearest_mode="floor"),
        _node("ReduceMean", "z", "m", axes=[1], keepdims=0),
        _node("Tile", "m repeats", "tiled"),
        _node("Clip", "tiled low high", "clipped"),
        _node("MatMul", "clipped w", "d"),
        _node("Div", "d sigma", "y"),
    ]  # fmt: skip
    stored = {
        "zero": np.array(0), "zeros": np.array([0]), "rest": np.array([2, 6]), "starts": np.array([1]),
        "ends": np.array([2**62]), "axes": np.array([2]), "wide": np.array([1, 2, 5]), "nothing": _floats(0),
        "scales": np.array([1, 1, 2], np.float32), "repeats": np.array([1, 2]), "low": np.float32(-1),
        "high": np.float32(2), "w": _floats(20, 3), "sigma": np.float32(0.5),
    }  # fmt: skip
    return _model(nodes, ["N", 3, 4], stored)


def _module() -> Any:
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(1, 2, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Flatten(), nn.Linear(6, 3)).eval()


@cache
def _checkpoint() -> bytes:
    import torch

    made = io.BytesIO()
    torch.save({"state_dict": _module().state_dict(), "epoch": 3, "loss": np.zeros(2)}, made)
    return made.getvalue()


@cache
def _safetensors() -> bytes:
    from safetensors.torch import save

    return bytes(save(_module().state_dict(), {"format": "pt"}))


@cache
def _program() -> bytes:
    import torch

    made = io.BytesIO()
    torch.export.save(torch.export.export(_module(), (torch.zeros(2, 1, 4),), strict=False), made)
    return made.getvalue()


@cache
def _data() -> bytes:
    made = io.BytesIO()
    np.savez(made, images=_floats(5, 4), labels=np.arange(5))
    return made.getvalue()


def _weights(path: Path) -> object:
    from lipcert.network.readers.torch.weights import load_into, read_weights

    state, _, _ = read_weights(path)
    return load_into(_module(), state, path.name)


def _pt2(path: Path) -> object:
    from lipcert.network.readers import load

    return load(path)


_BYTES = tuple(BYTES)
TARGETS: Mapping[str, Target] = {
    "certificate": Target(".lipcert", _certificate, damaged, _BYTES, _check),
    "certificate-header": Target(".lipcert", _certificate, damaged_header, _BYTES, _check),
    "onnx": Target(".onnx", convolutional, damaged, _BYTES, read_onnx),
    "onnx-graph": Target(".onnx", convolutional, damaged_graph, GRAPH, read_onnx),
    "onnx-moves": Target(".onnx", moving, damaged_graph, GRAPH, read_onnx),
    "safetensors": Target(".safetensors", _safetensors, damaged, _BYTES, _weights),
    "safetensors-header": Target(".safetensors", _safetensors, damaged_header, _BYTES, _weights),
    "checkpoint": Target(".pth", _checkpoint, damaged, _BYTES, _weights),
    "checkpoint-members": Target(".pth", _checkpoint, damaged_archive, _BYTES, _weights),
    "npz": Target(".npz", _data, damaged, _BYTES, load_data),
    "npz-members": Target(".npz", _data, damaged_archive, _BYTES, load_data),
    "pt2-members": Target(".pt2", _program, damaged_archive, _BYTES, _pt2),
}


@contextmanager
def limited_memory() -> Iterator[None]:
    """Limit the memory of this process while the context lasts, where the system allows it (Linux)."""
    sizes = Path("/proc/self/statm")
    if not sizes.exists():
        yield
        return
    import resource

    before, most = resource.getrlimit(resource.RLIMIT_AS)
    own = int(sizes.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (own + MEMORY, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, most))


def outcome(target: Target, content: bytes, folder: Path) -> str:
    """Read a file; return "read" or "refused".

    Raises:
        AssertionError: the refusal is not one printable line.
        Exception: the reader crashed.
    """
    path = folder / f"damaged{target.suffix}"
    path.write_bytes(content)
    try:
        target.read(path)
    except LipcertError as error:
        assert str(error).isprintable(), f"a refusal of several lines: {error!r}"
        return "refused"
    return "read"


# --- a long run -------------------------------------------------------------------------------------------------------


def random_edits(target: Target, dice: random.Random) -> list[Edit]:
    """Return a few random edits."""
    return [(dice.choice(target.kinds), dice.random(), dice.randrange(2**32)) for _ in range(dice.randint(1, 4))]


def run(names: Sequence[str], seconds: float, seed: int) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Damage files in turn until the time is up; return the counts, and one line of JSON for each new crash."""
    counts: Counter[tuple[str, str]] = Counter()
    crashes: dict[str, str] = {}
    dice, end = random.Random(seed), time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < end:
            for name in names:
                target = TARGETS[name]
                edits = random_edits(target, dice)
                start = time.monotonic()
                try:
                    counts[name, outcome(target, target.damage(target.content(), edits), Path(folder))] += 1
                except Exception as error:
                    counts[name, "crashed"] += 1
                    kind = f"{name}: {type(error).__name__}: {str(error)[:60]}"
                    crashes.setdefault(kind, json.dumps({"crash": kind, "target": name, "edits": edits}))
                if time.monotonic() - start > 10.0:
                    counts[name, "slow"] += 1
                    crashes.setdefault(f"{name} slow", json.dumps({"slow": name, "edits": edits}))
    return counts, list(crashes.values())


def main() -> int:
    """Run and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    options = parser.parse_args()
    for name in options.target:  # what they import is no memory of a damaged file
        with tempfile.TemporaryDirectory() as folder:
            if outcome(TARGETS[name], TARGETS[name].content(), Path(folder)) != "read":
                parser.error(f"the undamaged file of '{name}' is refused")
    with limited_memory():
        counts, crashes = run(options.target, 60.0 * options.minutes, options.seed)
    for name in options.target:
        found = {kind: count for (target, kind), count in sorted(counts.items()) if target == name}
        print(f"{name:20s} {', '.join(f'{count} {kind}' for kind, count in found.items())}")
    for line in crashes:
        print(line)
    return int(bool(crashes))


if __name__ == "__main__":
    sys.exit(main())
