"""`absolute`: |W_l| ... |W_1| for l1 and linf; never above the product of the norms, and just as cheap."""

from __future__ import annotations

from typing import ClassVar

from lipcert.bounds.method import Method, Proposal
from lipcert.network.graph import Network
from lipcert.proof.claims import Norm
from lipcert.proof.rules.absolute import Absolute as AbsoluteRule


class Absolute(Method):
    """Proposes nothing: the rule has no free parameters."""

    name: ClassVar[str] = "absolute"
    summary: ClassVar[str] = "product of the absolute values of the layers (l1 and linf)"
    norms: ClassVar[frozenset[Norm]] = AbsoluteRule.norms
    cost: ClassVar[str] = "one forward or backward pass of one sample"

    def refuses(self, network: Network, norm: Norm) -> str | None:
        """Return None: every supported network has this bound."""
        return None

    def propose(self, network: Network, norm: Norm, time_limit: float | None) -> Proposal:
        """Return the empty witness."""
        return Proposal(AbsoluteRule.id)
