"""What a method is: something that proposes a witness. It is never believed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import ClassVar

from lipcert.network.graph import Network
from lipcert.proof.certificate import Witness
from lipcert.proof.claims import Norm
from lipcert.proof.refusal import Refused
from lipcert.proof.rules import RULES, Derivation


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
        otherwise: what to try in turn where the rule refuses it: the same with more room, or something simpler. So a
            method need not prove anything itself (see `derive`).
    """

    rule: str
    witness: Witness = field(default_factory=dict)
    solver: Solver | None = None
    notes: tuple[str, ...] = ()
    otherwise: tuple[Proposal, ...] = ()

    def or_else(self, others: Iterable[Proposal]) -> Proposal:
        """Return the proposal with others to try after it, each followed by its own."""
        further = tuple(alone for other in others for alone in other.choices())
        return replace(self, otherwise=(*self.otherwise, *further))

    def choices(self) -> tuple[Proposal, ...]:
        """Return the proposal and what to try after it, one by one."""
        return (replace(self, otherwise=()), *self.otherwise)


def derive(network: Network, norm: Norm, proposal: Proposal) -> tuple[Proposal, Derivation]:
    """Derive a bound by the rule from the first of a method's proposals that it does not refuse; return that one too.

    network: a normal form. Level of the result: verified.

    Raises:
        Refused: there is none; what the rule said of the first.
    """
    refused = None
    for choice in proposal.choices():
        try:
            return choice, RULES[choice.rule].derive(network, norm, choice.witness)
        except Refused as refusal:
            refused = refused or refusal
    assert refused is not None
    raise refused


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
