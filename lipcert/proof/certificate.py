"""Certificates: claim, subject, rule and witness, and the file that carries them.

File format (``lipcert.certificate/v1``): a document and arrays in the container of `proof.container`. The witness
arrays are its tensors, and so is the table of a claim about margins (``claim.margins``, float64). Nothing in the file
but claim, rule id, digests and witness is used. The digests are SHA-256 in lower-case hex.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from lipcert.files import read_whole, write_whole
from lipcert.network.graph import Network
from lipcert.proof.claims import Claim, Norm, Table
from lipcert.proof.container import Arrays, number, pack, read, require, require_digest

SCHEMA = "lipcert.certificate/v1"
Witness = Arrays
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
        table = {} if self.claim.table is None else {TABLE: np.array(self.claim.table)}
        return pack(document, {**self.witness, **table})

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
        return read(parse, content, name)


def parse(document: dict[str, str], witness: dict[str, npt.NDArray[Any]]) -> Certificate:
    """Return a certificate from a container's content; raises ValueError and the like where anything is wrong."""
    require(set(document) == _KEYS, f"the document's keys are not {sorted(_KEYS)}")
    require(document["schema"] == SCHEMA, f"the schema is not {SCHEMA}")
    for key in ("graph_digest", "weights_digest"):
        require_digest(document, key)
    bound = number(document, "bound")
    table = _table(witness.pop(TABLE)) if document["quantity"] == "margins" else None
    claim = Claim(cast(Norm, document["norm"]), document["quantity"], bound, table)
    return Certificate(
        claim, document["rule"], document["graph_digest"], document["weights_digest"], witness, document["tool"]
    )


def _table(array: npt.NDArray[Any]) -> Table:
    require(array.dtype.kind == "f" and array.ndim == 2, f"'{TABLE}' is no table of real numbers")
    return tuple(map(tuple, array.tolist()))
