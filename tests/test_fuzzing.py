"""Damaged files of every kind: a reader reads them or refuses in one line. `python -m benchmarks.fuzz` runs longer."""

from __future__ import annotations

import io
import json
import struct
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import fuzz
from benchmarks.fuzz import TARGETS, Target, limited_memory, outcome
from lipcert.errors import LipcertError, UsageError
from lipcert.network.readers.onnx.file import read_onnx
from lipcert.network.readers.torch.archive import check_archive
from lipcert.network.readers.torch.weights import load_into, read_weights
from lipcert.proof import Certificate
from lipcert.robustness.data.dataset import load_data

EXAMPLES = {"pt2-members": 8, "onnx": 80, "onnx-graph": 80, "onnx-moves": 80}
places = st.floats(0.0, 1.0, exclude_max=True)


def edits(target: Target) -> st.SearchStrategy[list[fuzz.Edit]]:
    one = st.tuples(st.sampled_from(target.kinds), places, st.integers(0, 2**32 - 1))
    return st.lists(one, min_size=1, max_size=4)


def read(target: Target, content: bytes) -> str:
    with tempfile.TemporaryDirectory() as folder, limited_memory(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says at length what it finds odd in a pickle
        return outcome(target, content, Path(folder))


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_damaged_can_be_read_before(name: str) -> None:
    assert read(TARGETS[name], TARGETS[name].content()) == "read"


@pytest.mark.parametrize("name", TARGETS)
def test_damage_is_read_or_refused_in_one_line(name: str) -> None:
    target = TARGETS[name]

    @settings(max_examples=EXAMPLES.get(name, 120), deadline=None, derandomize=True, database=None)
    @given(edits(target))
    def fuzzed(found: list[fuzz.Edit]) -> None:
        assert read(target, target.damage(target.content(), found)) in ("read", "refused")

    fuzzed()


# --- headers that are JSON, but of anything -------------------------------------------------------------------------

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner)
)
tensors = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F64", "I64", "F32"]) | anything,
        "shape": st.lists(st.integers(-1, 2**62), max_size=3) | anything,
        "data_offsets": st.lists(st.integers(-8, 2**62), min_size=2, max_size=2) | anything,
    },
)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.dictionaries(st.text(max_size=3), tensors | anything, max_size=3), anything, st.binary(max_size=32))
def test_headers_of_anything_are_no_certificates(entries: dict[str, Any], document: Any, blob: bytes) -> None:
    for metadata in (document, {"lipcert": document}, {"lipcert": json.dumps(document)}):
        header = json.dumps({**entries, "__metadata__": metadata}).encode("utf-8", "surrogatepass")
        with pytest.raises(LipcertError) as caught:
            Certificate.from_bytes(struct.pack("<Q", len(header)) + header + blob)
        assert str(caught.value).isprintable()


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.dictionaries(st.text(max_size=3), tensors | anything, max_size=3), st.binary(max_size=32))
def test_entries_of_anything_in_a_certificate(entries: dict[str, Any], blob: bytes) -> None:
    """The document is a right one; what surrounds it is not."""
    content = TARGETS["certificate"].content()
    (length,) = struct.unpack("<Q", content[:8])
    own = json.loads(content[8 : 8 + length])
    header = json.dumps({"__metadata__": own["__metadata__"], **entries}).encode("utf-8", "surrogatepass")
    try:
        found = Certificate.from_bytes(struct.pack("<Q", len(header)) + header + blob)
    except LipcertError as error:
        assert str(error).isprintable()
        return
    assert sum(array.nbytes for array in found.witness.values()) <= len(blob)


# --- what it found ----------------------------------------------------------------------------------------------------


def archive(**members: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return made.getvalue()


def array(values: Any) -> bytes:
    made = io.BytesIO()
    np.save(made, values)
    return made.getvalue()


LABELS = array(np.zeros(3, dtype=int))
WHOLE = archive(images=array(np.ones((3, 4))), labels=LABELS)
DATA = {
    "a member that is no array": archive(images=b"not an array", labels=LABELS),
    "an unfinished header": archive(images=array(np.ones((3, 4))).replace(b"), }", b"(((("), labels=LABELS),
    "a shape of petabytes": archive(images=array(np.ones((3, 4))).replace(b"(3, 4)", b"(9**9,)"), labels=LABELS),
    "a shape of terabytes": archive(
        images=array(np.ones((3, 4))).replace(b"(3, 4), }", b"(99999999999,)}"), labels=LABELS
    ),
    "samples without entries": archive(images=array(np.ones((3, 0))), labels=LABELS),
    "an encrypted member": WHOLE.replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"),
    "a later zip": WHOLE.replace(b"PK\x01\x02\x14\x03\x14\x00", b"PK\x01\x02\x14\x03\xff\x00"),
}


@pytest.mark.parametrize("name", DATA)
def test_data_that_crashed_once(name: str, tmp_path: Path) -> None:
    assert DATA[name] != WHOLE
    path = tmp_path / "data.npz"
    path.write_bytes(DATA[name])
    with limited_memory(), pytest.raises(UsageError, match=r"cannot read|no samples") as caught:
        load_data(path)
    assert str(caught.value).isprintable()


def test_a_number_of_5000_digits_in_a_program(tmp_path: Path) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("program/models/model.json", f'{{"a": {"9" * 5000}}}')
    with pytest.raises(UsageError, match="damaged"):
        check_archive("program.pt2", made.getvalue())


def test_names_of_several_lines_in_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"first\nsecond": 3}, path)
    with pytest.raises(UsageError) as caught:
        read_weights(path)
    assert str(caught.value).isprintable()
    torch.save({"first\nsecond": torch.zeros(1)}, path)
    with pytest.raises(UsageError) as caught:
        load_into(torch.nn.Linear(1, 1), read_weights(path)[0], "weights\n.pt")
    assert str(caught.value).isprintable()


def test_onnx_sizes_beyond_all_memory(tmp_path: Path) -> None:
    content = TARGETS["onnx"].content()
    model = onnx.load_model_from_string(content)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 2**40
    path = tmp_path / "large.onnx"
    path.write_bytes(model.SerializeToString())
    with limited_memory(), pytest.raises(LipcertError) as caught:
        read_onnx(path)
    assert str(caught.value).isprintable()


def test_messages_are_one_printable_line() -> None:
    assert str(LipcertError("a\nb\x00\udc80c")) == "a b??c"
