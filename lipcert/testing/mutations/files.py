"""Mutations of the certificate's file: its bytes, its header, the layout of its arrays."""

from __future__ import annotations

import json
import struct
from typing import Any

from lipcert.network.graph import Network
from lipcert.proof.rules import RULES
from lipcert.testing.mutations.case import Filed, Rng, pick

ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    10**400,
    1e308,
    "",
    "1" * 5000,
    "\x00",
    [],
    {},
    [[]] * 3,
    "nan",
    "inf",
    "0x1p+9999",
)
TEXTS = (
    *("l1", "l2", "linf", "output", "features", "margins", "logit 0", "margin 0 1", "margin 0 0"),
    *("0x0.0p+0", "-0x1.0p+0", "0x0.0000000000001p-1022", "0x1.fffffffffffffp+1023", *RULES),
)


def flip_bit(case: Filed, rng: Rng) -> tuple[bytes, Network]:
    """Flip one bit anywhere."""
    content = bytearray(case.content)
    content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    return bytes(content), case.network


def flip_blob_bit(case: Filed, rng: Rng) -> tuple[bytes, Network] | None:
    """Flip one bit of the arrays."""
    content = bytearray(case.content)
    start = 8 + struct.unpack("<Q", content[:8])[0]
    if start == len(content):
        return None
    content[rng.integers(start, len(content))] ^= 1 << int(rng.integers(8))
    return bytes(content), case.network


def cut(case: Filed, rng: Rng) -> tuple[bytes, Network]:
    """Cut something off or out, or append it again."""
    content = case.content
    start, end = sorted(rng.integers(0, len(content) + 1, 2).tolist())
    forms = (content[:start], content[end:], content[:start] + content[end:], content + content[start:end])
    return forms[rng.integers(len(forms))], case.network


def _parts(case: Filed) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    content = case.content
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    return header, json.loads(header["__metadata__"]["lipcert"]), content[8 + length :]


def _file(header: dict[str, Any], document: dict[str, Any] | str, blob: bytes) -> bytes:
    text = document if isinstance(document, str) else json.dumps(document)
    whole = json.dumps({**header, "__metadata__": {"lipcert": text}}).encode()
    return struct.pack("<Q", len(whole)) + whole + blob


def change_field(case: Filed, rng: Rng) -> tuple[bytes, Network]:
    """Replace a field of the document."""
    header, document, blob = _parts(case)
    document[pick(rng, sorted(document))] = pick(rng, (*ODD, *TEXTS))
    return _file(header, document, blob), case.network


def change_keys(case: Filed, rng: Rng) -> tuple[bytes, Network]:
    """Drop, add or repeat a key of the document."""
    header, document, blob = _parts(case)
    key = pick(rng, sorted(document))
    text = json.dumps(document)
    forms = (
        json.dumps({k: v for k, v in document.items() if k != key}),
        json.dumps({**document, "more": "x"}),
        text[:-1] + f', "{key}": {json.dumps(pick(rng, TEXTS))}}}',
        text.replace('"', "'"),
        "[" * 100_000,
        text + text,
    )
    return _file(header, pick(rng, forms), blob), case.network


def change_digest(case: Filed, rng: Rng) -> tuple[bytes, Network]:
    """Change one digit of a digest."""
    header, document, blob = _parts(case)
    key = pick(rng, [key for key in sorted(document) if key.endswith("_digest")])
    digits = list(document[key])
    digits[rng.integers(64)] = "0123456789abcdefABCDEF-"[rng.integers(23)]
    document[key] = "".join(digits)
    return _file(header, document, blob), case.network


def change_layout(case: Filed, rng: Rng) -> tuple[bytes, Network] | None:
    """Change dtype, shape or place of an array."""
    header, document, blob = _parts(case)
    names = sorted(set(header) - {"__metadata__"})
    if not names:
        return None
    entry = header[pick(rng, names)]
    key = pick(rng, ("dtype", "shape", "data_offsets"))
    values = {
        "dtype": ("F64", "I64", "F32", "BF16", None),
        "shape": ([], [0], [-1], [2**70], [1, *entry["shape"]], entry["shape"][::-1], [True], [1.0], None),
        "data_offsets": ([0, 0], [0, 2**70], [8, 16], entry["data_offsets"][::-1], [0], [-8, 8], None),
    }
    entry[key] = pick(rng, (*values[key], *ODD))
    return _file(header, document, blob), case.network
