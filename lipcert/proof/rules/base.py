"""What every rule is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from lipcert.network.enclosure import Float
from lipcert.network.graph import Network
from lipcert.proof.certificate import Witness
from lipcert.proof.claims import Norm
from lipcert.proof.refusal import Refused


@dataclass(frozen=True)
class Step:
    """What one node does to the bound.

    Attributes:
        node: index in the normal form.
        factor: norm of an affine operator, slope bound of an activation, 1 for sums and concatenations.
        cumulative: bound from the input up to and including the node.
    """

    node: int
    factor: float
    cumulative: float


@dataclass(frozen=True)
class Derivation:
    """What a rule derived of a network.

    Attributes:
        bound: Lipschitz bound of the whole output.
        steps: how it came about, in node order (empty where a rule does not go step by step).
        margins: (n, n) bounds of all differences of two outputs, zero on the diagonal, from rules that give them.
    """

    bound: float
    steps: tuple[Step, ...] = ()
    margins: Float | None = None


class Rule(ABC):
    """One theorem with free parameters, the witness; any admissible choice gives a valid bound."""

    id: ClassVar[str]
    norms: ClassVar[frozenset[Norm]]

    def derive(self, network: Network, norm: Norm, witness: Witness) -> Derivation:
        """Derive a Lipschitz bound of a normal form.

        Level of the result: verified.

        Raises:
            Refused: the rule is not for the norm, the witness is not admissible, or the network has a node that the
                theorem does not cover.
        """
        if norm not in self.norms:
            raise Refused(f"the rule {self.id} is for {' and '.join(sorted(self.norms))}, not {norm}")
        return self.prove(network, norm, witness)

    @abstractmethod
    def prove(self, network: Network, norm: Norm, witness: Witness) -> Derivation:
        """Derive the bound in one of the rule's norms; otherwise as `derive`, which calls it."""
