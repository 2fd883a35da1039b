"""Certificate files: what is written is read back, and nothing out of order is read at all."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load as safetensors_load

from lipcert.errors import CertificateError, UsageError
from lipcert.proof.certificate import Certificate
from lipcert.proof.claims import Claim
from lipcert.proof.reasons import Malformed, Reason

DIGEST = "0123456789abcdef" * 4


def certificate() -> Certificate:
    witness = {"nodes": np.array([1, 3], dtype=np.int64), "norms": np.array([1.5, 0.1]), "empty": np.zeros((0, 2))}
    return Certificate(Claim("l2", "output", 0.1), "product/v1", DIGEST, DIGEST[::-1], witness)


def test_round_trip(tmp_path: Path) -> None:
    original = certificate()
    original.save(tmp_path / "a.lipcert")
    read = Certificate.load(tmp_path / "a.lipcert")
    assert (read.claim, read.rule, read.graph_digest, read.weights_digest) == (
        original.claim,
        original.rule,
        original.graph_digest,
        original.weights_digest,
    )
    assert set(read.witness) == set(original.witness)
    for name, array in original.witness.items():
        np.testing.assert_array_equal(read.witness[name], array)
    assert [p.name for p in tmp_path.iterdir()] == ["a.lipcert"]


def test_the_file_is_a_safetensors_file() -> None:
    arrays = safetensors_load(certificate().to_bytes())
    np.testing.assert_array_equal(arrays["norms"], [1.5, 0.1])


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        Certificate.load(tmp_path / "none.lipcert")
    with pytest.raises(UsageError, match="cannot write"):
        certificate().save(tmp_path / "none" / "a.lipcert")


def rebuilt(change: object) -> bytes:
    """Return the file with its header changed by a function of (header, document)."""
    content = certificate().to_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    document = json.loads(header["__metadata__"]["lipcert"])
    change(header, document)  # type: ignore[operator]
    header["__metadata__"]["lipcert"] = json.dumps(document)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


CHANGES = {
    "unknown key": lambda h, d: d.update(extra="x"),
    "missing key": lambda h, d: d.pop("rule"),
    "schema": lambda h, d: d.update(schema="lipcert.certificate/v2"),
    "norm": lambda h, d: d.update(norm="l3"),
    "quantity": lambda h, d: d.update(quantity="nothing"),
    "number for text": lambda h, d: d.update(bound=0.1),
    "nan": lambda h, d: d.update(bound="nan"),
    "infinite": lambda h, d: d.update(bound="inf"),
    "negative": lambda h, d: d.update(bound=(-1.0).hex()),
    "decimal bound": lambda h, d: d.update(bound="0.1"),
    "short digest": lambda h, d: d.update(graph_digest="ab"),
    "upper-case digest": lambda h, d: d.update(graph_digest=DIGEST.upper()),
    "dtype": lambda h, d: h["norms"].update(dtype="F32"),
    "shape": lambda h, d: h["norms"].update(shape=[3]),
    "huge shape": lambda h, d: h["norms"].update(shape=[2**62, 2**62]),
    "negative shape": lambda h, d: h["norms"].update(shape=[-1, -2]),
    "boolean shape": lambda h, d: h["norms"].update(shape=[True, 2]),
    "offsets": lambda h, d: h["norms"].update(data_offsets=[8, 24]),
    "extra entry key": lambda h, d: h["norms"].update(more=1),
    "extra metadata": lambda h, d: h["__metadata__"].update(more="1"),
    "no metadata": lambda h, d: h.update(__metadata__={}),
}


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_malformed_headers_are_refused(name: str) -> None:
    if name == "no metadata":
        content = certificate().to_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        header.pop("__metadata__")
        text = json.dumps(header).encode()
        changed = struct.pack("<Q", len(text)) + text + content[8 + length :]
    else:
        changed = rebuilt(CHANGES[name])
    with pytest.raises(CertificateError, match="not a valid certificate"):
        Certificate.from_bytes(changed)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *((name, Reason.NOT_FINITE) for name in ("nan", "infinite", "negative")),
        *((name, Reason.MALFORMED) for name in ("dtype", "offsets", "norm")),
    ],
)
def test_the_error_has_a_reason(name: str, reason: Reason) -> None:
    with pytest.raises(Malformed) as caught:
        Certificate.from_bytes(rebuilt(CHANGES[name]))
    assert caught.value.reason is reason


def test_repeated_keys_are_refused() -> None:
    content = certificate().to_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    text = content[8 : 8 + length].decode().rstrip()
    doubled = (text[:-1] + ',"norms":{"dtype":"F64","shape":[2],"data_offsets":[16,32]}}').encode()
    with pytest.raises(CertificateError, match="twice"):
        Certificate.from_bytes(struct.pack("<Q", len(doubled)) + doubled + content[8 + length :])


def test_nan_in_the_witness_is_refused() -> None:
    witness = {"norms": np.array([np.nan])}
    bad = Certificate(Claim("l2", "output", 1.0), "product/v1", DIGEST, DIGEST, witness)
    with pytest.raises(CertificateError, match="NaN"):
        Certificate.from_bytes(bad.to_bytes())


@given(st.integers(0, 10**6), st.binary(max_size=40))
def test_truncated_and_spliced_files_never_crash(cut: int, tail: bytes) -> None:
    content = certificate().to_bytes()
    changed = content[: cut % len(content)] + tail
    if changed == content:
        return
    with pytest.raises(CertificateError):
        Certificate.from_bytes(changed)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_crash(content: bytes) -> None:
    with pytest.raises(CertificateError):
        Certificate.from_bytes(content)
