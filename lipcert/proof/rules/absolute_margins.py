"""The absolute-value rule for all differences of two outputs, in l1 and linf.

Every margin f_i - f_j is a network with one output, whose last layer, where it is linear, has the row w_i - w_j. The
absolute-value rule bounds it: in linf by |w_i - w_j| |W_l| ... |W_1| 1, which is never above ||w_i - w_j||_1 times the
bound of the features.
"""

from __future__ import annotations

from itertools import combinations
from typing import ClassVar

import numpy as np

from lipcert.network.graph import Network
from lipcert.proof.certificate import Witness
from lipcert.proof.claims import Norm, margin
from lipcert.proof.refusal import Refused
from lipcert.proof.rules.absolute import Absolute
from lipcert.proof.rules.base import Derivation, Rule
from lipcert.proof.subject import subject

MOST_OUTPUTS = 100  # 4950 pairs


class AbsoluteMargins(Rule):
    """The absolute-value rule, pair by pair. Witness: no arrays."""

    id: ClassVar[str] = "absolute-margins/v1"
    norms: ClassVar[frozenset[Norm]] = Absolute.norms

    def __init__(self, rule: Rule) -> None:
        """Take the absolute-value rule, in one arithmetic or another."""
        self._rule = rule

    def prove(self, network: Network, norm: Norm, witness: Witness) -> Derivation:
        """Derive a bound of the whole output and of all margins; cost: one pass of a single sample per pair."""
        count = network.nodes[-1].size
        if count > MOST_OUTPUTS:
            raise Refused(f"{count} outputs have too many pairs: {MOST_OUTPUTS} outputs are the most")
        bound = self._rule.derive(network, norm, witness).bound
        margins = np.zeros((count, count))
        for i, j in combinations(range(count), 2):
            own = self._rule.derive(subject(network, margin(i, j)), norm, witness).bound
            margins[i, j] = margins[j, i] = own
        return Derivation(bound, margins=margins)
