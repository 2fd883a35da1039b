"""What is mutated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

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


class Filed(Protocol):
    """What mutations of files need of a case."""

    @property
    def content(self) -> bytes:
        """The certificate's file."""

    @property
    def network(self) -> Network:
        """The network that it is about."""


Mutation = Callable[[Case, Rng], tuple[bytes, Network] | None]
"""From a case to another file and network; None where there is nothing to change."""


def pick(rng: Rng, choices: Any) -> Any:
    """Return one of a sequence."""
    return choices[int(rng.integers(len(choices)))]
