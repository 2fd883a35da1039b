"""`product`: the product of verified operator norms, over any graph."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from lipcert.bounds.method import Method, Proposal
from lipcert.bounds.norms import certified_norm
from lipcert.network.graph import Network
from lipcert.proof.claims import NORMS, Norm
from lipcert.proof.rules.product import Product as ProductRule
from lipcert.proof.rules.product import needs_witness


class Product(Method):
    """Proposes the l2 norm of every dense and convolution operator; l1 and linf need no proposal."""

    name: ClassVar[str] = "product"
    summary: ClassVar[str] = "product of verified operator norms along every path"
    norms: ClassVar[frozenset[Norm]] = frozenset(NORMS)
    cost: ClassVar[str] = "one Gram matrix and one Cholesky factorisation per layer, n^3"

    def refuses(self, network: Network, norm: Norm) -> str | None:
        """Return None: every supported network has a product bound."""
        return None

    def propose(self, network: Network, norm: Norm, time_limit: float | None) -> Proposal:
        """Propose the norms; the time limit is not needed."""
        nodes: list[int] = []
        norms: list[float] = []
        notes: list[str] = []
        for index, node in enumerate(network.nodes):
            if norm == "l2" and needs_witness(node.op):
                found = certified_norm(node.op, network.nodes[node.inputs[0]].shape, node.shape)
                nodes.append(index)
                norms.append(found.value)
                if found.technique not in ("blocks", "dense"):
                    notes.append(f"norm of '{node.name}' by {found.technique}")
        witness = {"nodes": np.array(nodes, dtype=np.int64), "norms": np.array(norms, dtype=np.float64)}
        return Proposal(ProductRule.id, witness, notes=tuple(notes))
