"""What a method is: something that proposes a witness. It is never believed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

from lipcert.network.graph import Network
from lipcert.proof.certificate import Witness
from lipcert.proof.claims import Norm


@dataclass(frozen=True)
class Solver:
    """What a numerical solver said of its own work.

    Attributes:
        name: solver, with version where known.
        status: its status word.
        gap: relative duality gap, or None where it has none.
    """

    name: str
    status: str
    gap: float | None = None


@dataclass(frozen=True)
class Proposal:
    """A witness for a rule.

    Attributes:
        rule: id of the rule.
        witness: arrays for the rule.
        solver: the solver behind it, where one was used.
        notes: what a person should know (techniques chosen, limits reached).
    """

    rule: str
    witness: Witness = field(default_factory=dict)
    solver: Solver | None = None
    notes: tuple[str, ...] = ()


class Method(ABC):
    """One way to propose a global bound; one file each, registered in `bounds.registry`.

    Class attributes:
        name: spelling on the command line.
        summary: one line for people.
        norms: norms it serves.
        cost: what it costs, in words and orders of growth.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    norms: ClassVar[frozenset[Norm]]
    cost: ClassVar[str]

    @abstractmethod
    def refuses(self, network: Network, norm: Norm) -> str | None:
        """Return why this method cannot serve a normal form, or None where it can."""

    @abstractmethod
    def propose(self, network: Network, norm: Norm, time_limit: float | None) -> Proposal:
        """Propose a witness for a normal form.

        time_limit: seconds, or None. An anytime method returns its best so far.

        Raises:
            InconclusiveError: the limit left nothing to propose.
        """
