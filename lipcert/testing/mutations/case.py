"""What is mutated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lipcert.network.graph import Network
from lipcert.proof.certificate import Certificate

Rng = np.random.Generator


@dataclass(frozen=True, eq=False)
class Case:
    """A valid certificate with its network."""

    certificate: Certificate
    network: Network

    @property
    def content(self) -> bytes:
        """The certificate's file."""
        return self.certificate.to_bytes()


Mutation = Callable[[Case, Rng], tuple[bytes, Network] | None]
"""From a case to another file and network; None where there is nothing to change."""


def pick(rng: Rng, choices: Any) -> Any:
    """Return one of a sequence."""
    return choices[int(rng.integers(len(choices)))]
