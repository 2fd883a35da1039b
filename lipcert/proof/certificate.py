"""Certificates: claim, subject, rule and witness, and the file that carries them.

File format (``lipcert.certificate/v1``): a safetensors file. Eight bytes little-endian length, a JSON header,
one blob. The header's ``__metadata__`` has the single key ``lipcert`` whose text is the certificate's own JSON
document; the witness arrays are the tensors, float64 or int64, and so is the table of a claim about margins
(``claim.margins``, float64). Reading is strict: unknown or repeated keys, other
dtypes, gaps, overlaps and trailing bytes are all refused. Nothing in the file is executed, and nothing in it but
claim, rule id, digests and witness is used. The digests are SHA-256 in lower-case hex.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lipcert.files import read_whole, write_whole
from lipcert.network.graph import Network
from lipcert.proof.claims import Claim, Table
from lipcert.proof.reasons import Malformed, Reason

SCHEMA = "lipcert.certificate/v1"
MAX_HEADER = 16 * 2**20
Witness = Mapping[str, npt.NDArray[Any]]
_DTYPES = {"F64": np.dtype("<f8"), "I64": np.dtype("<i8")}
TABLE = "claim.margins"
_KEYS = {"schema", "norm", "quantity", "bound", "rule", "graph_digest", "weights_digest", "tool"}


@dataclass(frozen=True, eq=False)
class Certificate:
    """A bound with what is needed to derive it again.

    Attributes:
        claim: what is claimed.
        rule: id of the rule that derives it, such as ``product/v1``.
        graph_digest, weights_digest: of the network as read (`Network.graph_digest`, `Network.weights_digest`).
        witness: named float64 or int64 arrays; their meaning is the rule's.
        tool: who wrote it; informative only.
    """

    claim: Claim
    rule: str
    graph_digest: str
    weights_digest: str
    witness: Witness = field(default_factory=dict)
    tool: str = "lipcert"

    @staticmethod
    def of(network: Network, claim: Claim, rule: str, witness: Witness) -> Certificate:
        """Return a certificate whose subject is `network`."""
        return Certificate(claim, rule, network.graph_digest, network.weights_digest, witness)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the certificate; the file appears whole or not at all.

        Raises:
            UsageError: the file cannot be written.
        """
        with write_whole(Path(path)) as temporary:
            temporary.write_bytes(self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the file's content."""
        document = {
            "schema": SCHEMA,
            "norm": self.claim.norm,
            "quantity": self.claim.quantity,
            "bound": self.claim.bound.hex(),
            "rule": self.rule,
            "graph_digest": self.graph_digest,
            "weights_digest": self.weights_digest,
            "tool": self.tool,
        }
        header: dict[str, Any] = {"__metadata__": {"lipcert": json.dumps(document)}}
        blob = bytearray()
        table = {} if self.claim.table is None else {TABLE: np.array(self.claim.table)}
        for name, value in sorted({**self.witness, **table}.items()):
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

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Certificate:
        """Read a certificate file.

        Raises:
            UsageError: there is no such file.
            Malformed: the file is not a well-formed certificate.
        """
        return Certificate.from_bytes(read_whole(path, "certificate"), str(path))

    @staticmethod
    def from_bytes(content: bytes, name: str = "certificate") -> Certificate:
        """Parse a certificate file's content; raises Malformed where anything is out of order."""
        try:
            return _parse(content)
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            RecursionError,
            OverflowError,
            struct.error,
        ) as error:
            reason = Reason.NOT_FINITE if isinstance(error, _NotFinite) else Reason.MALFORMED
            raise Malformed(f"'{name}' is not a valid certificate file: {error}", reason) from None


class _NotFinite(ValueError):
    """A number is NaN, infinite or no bound."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    _require(len(set(keys)) == len(keys), "a key stands twice")
    return dict(pairs)


def _no_constant(text: str) -> Any:
    raise _NotFinite(f"{text} is not a number")


def _json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)


def _parse(content: bytes) -> Certificate:
    _require(len(content) >= 8, "the file is too short")
    (length,) = struct.unpack("<Q", content[:8])
    _require(length <= MAX_HEADER and 8 + length <= len(content), "the header is cut off")
    header = _json(content[8 : 8 + length].decode("utf-8"))
    metadata = header.pop("__metadata__")
    _require(set(metadata) == {"lipcert"}, "the metadata has unknown keys")
    document = _json(metadata["lipcert"])
    _require(set(document) == _KEYS, f"the document's keys are not {sorted(_KEYS)}")
    _require(all(isinstance(value, str) for value in document.values()), "a field is not text")
    _require(document["schema"] == SCHEMA, f"the schema is not {SCHEMA}")
    for key in ("graph_digest", "weights_digest"):
        digest = document[key]
        _require(len(digest) == 64 and set(digest) <= set("0123456789abcdef"), f"{key} is not a SHA-256 in hex")
    bound = float.fromhex(document["bound"])
    _require(bound.hex() == document["bound"], "the bound is not in normal hexadecimal form")
    if not (math.isfinite(bound) and bound >= 0):
        raise _NotFinite(f"a bound is finite and not negative, not {bound}")
    witness = _arrays(header, memoryview(content)[8 + length :])
    table = _table(witness.pop(TABLE)) if document["quantity"] == "margins" else None
    claim = Claim(document["norm"], document["quantity"], bound, table)
    return Certificate(
        claim, document["rule"], document["graph_digest"], document["weights_digest"], witness, document["tool"]
    )


def _table(array: npt.NDArray[Any]) -> Table:
    _require(array.dtype.kind == "f" and array.ndim == 2, f"'{TABLE}' is no table of real numbers")
    return tuple(map(tuple, array.tolist()))


def _arrays(header: dict[str, Any], blob: memoryview) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays that the header lays out; they fill the blob without gap or overlap."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    position = 0
    for name, entry in sorted(header.items(), key=lambda item: (item[1]["data_offsets"], item[0])):
        _require(set(entry) == {"dtype", "shape", "data_offsets"}, f"'{name}' has unknown keys")
        _require(entry["dtype"] in _DTYPES, f"'{name}' is neither float64 nor int64")
        shape, (begin, end) = entry["shape"], entry["data_offsets"]
        _require(all(type(n) is int and n >= 0 for n in (*shape, begin, end)), f"'{name}' has a bad shape")
        _require(begin == position and end <= len(blob), f"'{name}' leaves a gap or overlaps")
        _require(end - begin == 8 * math.prod(shape), f"'{name}' has the wrong length")
        array = np.frombuffer(blob[begin:end], dtype=_DTYPES[entry["dtype"]]).reshape(shape)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise _NotFinite(f"'{name}' has NaN or infinite entries")
        arrays[name] = array
        position = end
    _require(position == len(blob), "bytes are left over at the end")
    return arrays
