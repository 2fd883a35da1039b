"""Certificates of samples: everything in a ball around each of them keeps its class.

File format (``lipcert.samples/v1``): a document and arrays in the container of `proof.container`. The samples may be
stored with it (``claim.inputs`` float64, ``claim.labels`` int64); the other arrays are the witness. The digest of the
samples is a SHA-256 over their shape and their numbers, in lower-case hex, so that whoever has the data can tell
whether the certificate is about them.
"""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from lipcert.files import write_whole
from lipcert.network.enclosure import Float
from lipcert.network.graph import Network
from lipcert.proof.certificate import Certificate, parse
from lipcert.proof.claims import NORMS, Norm
from lipcert.proof.container import Arrays, number, pack, read, require, require_digest
from lipcert.proof.local.proposal import Ints

SCHEMA = "lipcert.samples/v1"
_INPUTS, _LABELS = "claim.inputs", "claim.labels"
_KEYS = {"schema", "norm", "eps", "box", "data_digest", "rule", "graph_digest", "weights_digest", "tool"}


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs with their classes.

    Attributes:
        inputs: (N, *input_shape) float64, finite, in the units of the network's input.
        labels: (N,) int64.
    """

    inputs: Float
    labels: Ints

    @staticmethod
    def of(inputs: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Samples:
        """Return samples from numbers of any type that float64 and int64 hold exactly; raises ValueError for others."""
        numbers, classes = np.asarray(inputs), np.asarray(labels)
        require(numbers.dtype.kind == "f" and numbers.dtype.itemsize <= 8, "inputs are real numbers")
        require(classes.dtype.kind in "iu" and classes.ndim == 1, "labels are whole numbers, one for each sample")
        require(len(numbers) == len(classes) > 0, "there are as many labels as inputs, and at least one")
        require(bool(np.isfinite(numbers).all()), "inputs are finite")
        return Samples(numbers.astype(np.float64), classes.astype(np.int64))

    @property
    def digest(self) -> str:
        """SHA-256 of shape and numbers."""
        content = hashlib.sha256(repr(self.inputs.shape).encode())
        content.update(np.ascontiguousarray(self.inputs, dtype="<f8").tobytes())
        content.update(np.ascontiguousarray(self.labels, dtype="<i8").tobytes())
        return content.hexdigest()


@dataclass(frozen=True)
class BallClaim:
    """For every sample x of class y, every x' with ||x' - x|| <= eps, and every other class j: f_y(x') > f_j(x').

    In real arithmetic, f being the network without a last softmax.

    Attributes:
        norm, eps: of the balls; eps is positive, in raw input units.
        box: least and largest value of an input, where x' is known to keep to them; None for no box.
        data_digest: of the samples.
    """

    norm: Norm
    eps: float
    box: tuple[float, float] | None
    data_digest: str

    def __post_init__(self) -> None:
        require(self.norm in NORMS, f"there is no norm '{self.norm}'")
        require(0 < self.eps < math.inf, f"a radius is a positive number, not {self.eps}")
        if self.box is not None:
            require(-math.inf < self.box[0] < self.box[1] < math.inf, "the input box is empty or not finite")


@dataclass(frozen=True, eq=False)
class LocalCertificate:
    """A claim about samples with what is needed to derive it again.

    Attributes:
        claim, rule, graph_digest, weights_digest, witness, tool: as of `Certificate`.
        samples: where they are stored with it, else None.
    """

    claim: BallClaim
    rule: str
    graph_digest: str
    weights_digest: str
    witness: Arrays = field(default_factory=dict)
    samples: Samples | None = None
    tool: str = "lipcert"

    @staticmethod
    def of(network: Network, claim: BallClaim, rule: str, witness: Arrays, samples: Samples | None) -> LocalCertificate:
        """Return a certificate whose subject is `network`."""
        return LocalCertificate(claim, rule, network.graph_digest, network.weights_digest, witness, samples)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the certificate; the file appears whole or not at all.

        Raises:
            UsageError: the file cannot be written.
        """
        with write_whole(Path(path)) as temporary:
            temporary.write_bytes(self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the file's content."""
        claim = self.claim
        document = {
            "schema": SCHEMA,
            "norm": claim.norm,
            "eps": claim.eps.hex(),
            "box": "" if claim.box is None else " ".join(end.hex() for end in claim.box),
            "data_digest": claim.data_digest,
            "rule": self.rule,
            "graph_digest": self.graph_digest,
            "weights_digest": self.weights_digest,
            "tool": self.tool,
        }
        stored = {} if self.samples is None else {_INPUTS: self.samples.inputs, _LABELS: self.samples.labels}
        return pack(document, {**self.witness, **stored})

    @staticmethod
    def from_bytes(content: bytes, name: str = "certificate") -> LocalCertificate:
        """Parse a certificate file's content; raises Malformed where anything is out of order."""
        return read(_parse, content, name)


def any_certificate(content: bytes, name: str = "certificate") -> Certificate | LocalCertificate:
    """Parse a certificate file of either kind; raises Malformed where anything is out of order."""
    return read(_parse_any, content, name)


def _parse_any(document: dict[str, str], arrays: dict[str, npt.NDArray[Any]]) -> Certificate | LocalCertificate:
    return _parse(document, arrays) if document["schema"] == SCHEMA else parse(document, arrays)


def _parse(document: dict[str, str], arrays: dict[str, npt.NDArray[Any]]) -> LocalCertificate:
    require(set(document) == _KEYS, f"the document's keys are not {sorted(_KEYS)}")
    require(document["schema"] == SCHEMA, f"the schema is not {SCHEMA}")
    for key in ("graph_digest", "weights_digest", "data_digest"):
        require_digest(document, key)
    claim = BallClaim(
        cast(Norm, document["norm"]), number(document, "eps"), _box(document["box"]), document["data_digest"]
    )
    samples = None
    if _INPUTS in arrays or _LABELS in arrays:
        samples = Samples.of(arrays.pop(_INPUTS), arrays.pop(_LABELS))
    return LocalCertificate(
        claim, document["rule"], document["graph_digest"], document["weights_digest"], arrays, samples, document["tool"]
    )


def _box(text: str) -> tuple[float, float] | None:
    if not text:
        return None
    low, high = (float.fromhex(end) for end in text.split(" "))
    require(" ".join(end.hex() for end in (low, high)) == text, "the box is not in normal hexadecimal form")
    return low, high
