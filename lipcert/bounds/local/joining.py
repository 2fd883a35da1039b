"""Certificates of samples as one: claims about single samples do not depend on each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lipcert.proof.local import LocalCertificate, Samples

WHOLE = "norms/"  # arrays of a witness that are about the network; all others have a row for each sample
Form = tuple[tuple[str, tuple[int, ...] | bytes], ...]


def join(parts: Sequence[LocalCertificate]) -> list[LocalCertificate]:
    """Return as few certificates of all samples as can be, samples in the order of the parts.

    Args:
        parts: of one network, method, radius, norm and box; their samples are stored with them. Those join whose
            witnesses have arrays of the same names and shapes.
    """
    groups: dict[Form, list[LocalCertificate]] = {}
    for part in parts:
        groups.setdefault(_form(part), []).append(part)
    return [_joined(group) for group in groups.values()]


def _form(part: LocalCertificate) -> Form:
    """Return what certificates that join have in common."""
    return tuple(
        (name, array.tobytes() if name.startswith(WHOLE) else array.shape[1:])
        for name, array in sorted(part.witness.items())
    )


def _joined(group: Sequence[LocalCertificate]) -> LocalCertificate:
    held = [part.samples for part in group if part.samples is not None]
    samples = Samples(np.concatenate([s.inputs for s in held]), np.concatenate([s.labels for s in held]))
    witness: dict[str, npt.NDArray[Any]] = {}
    for name, array in group[0].witness.items():
        rows = [part.witness[name] for part in group]
        witness[name] = array if name.startswith(WHOLE) else np.concatenate(rows)
    claim = replace(group[0].claim, data_digest=samples.digest)
    return replace(group[0], claim=claim, witness=witness, samples=samples)
