"""Whether a certificate of samples is about the data that someone has; needs no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from lipcert.network.graph import Network
from lipcert.proof.checker import Verdict, other_model, unproved
from lipcert.proof.engines import Engine
from lipcert.proof.local import LocalCertificate, Samples, check_local
from lipcert.proof.reasons import Reason
from lipcert.robustness.data.dataset import Dataset, as_dataset, fit
from lipcert.robustness.data.streams import blocks


def check_on(
    certificate: LocalCertificate, network: Network, engine: Engine, data: Any, scale: float | None
) -> tuple[Verdict, Samples | None]:
    """Check a certificate of samples, and that it is about some data.

    Samples that are stored with it have to be among those of the data, each with its label, bit by bit and in float32,
    as they were certified. Where only their digest is stored, they have to be all those of the data, in this order.

    Args:
        certificate: as loaded. network: as read. engine: of the check.
        data, scale: as of `data.as_dataset`.

    Returns:
        The verdict, and the samples that it is about. Level of a valid claim: verified.

    Raises:
        UsageError: the data cannot be read or does not fit the network.
    """
    other = other_model(certificate.graph_digest, certificate.weights_digest, network)
    if other is not None:  # data need not fit another model
        return other, None
    dataset = fit(as_dataset(data, scale), network.input_shape, network.nodes[-1].size)
    samples = certificate.samples
    if samples is None:
        samples = Samples.of(np.asarray(dataset.images[:]), dataset.labels)
        return check_local(certificate, network, samples, engine), samples
    known = set(_of_data(dataset))
    strange = [row for row, key in enumerate(_of(samples)) if key not in known]
    if strange:
        detail = f"{len(strange)} of its {len(samples.labels)} samples are not in the data, the first is {strange[0]}"
        return unproved(Reason.OTHER_DATA, detail), None
    return check_local(certificate, network, samples, engine), samples


def _of_data(dataset: Dataset) -> Iterator[bytes]:
    """Yield a digest of each sample of some data."""
    start = 0
    for block in blocks(dataset.images):
        yield from _of(Samples.of(block, dataset.labels[start : start + len(block)]))
        start += len(block)


def _of(samples: Samples) -> Iterator[bytes]:
    """Yield a digest of each sample."""
    inputs = np.ascontiguousarray(samples.inputs, dtype="<f8")
    for row, label in zip(inputs, samples.labels.tolist(), strict=True):
        yield hashlib.sha256(row.tobytes() + label.to_bytes(8, "little", signed=True)).digest()
