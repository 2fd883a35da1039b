"""The product rule: norms multiply along paths, over any graph.

Theorem. If every affine operator A has ||A|| <= s_A, then the bounds that `composition` and these factors give,
taken node by node from L(input) = 1, are Lipschitz bounds of every node. Proof: induction over the graph.

Witness: the l2 norms of dense and convolution operators, which are verified here; l1 and linf norms, and the
norms of pooling, scaling and index maps, are computed here and need none.
Source: Szegedy et al. 2014 for chains; `composition` has the proofs for the other nodes.
"""

from __future__ import annotations

from typing import ClassVar, TypeGuard

import numpy as np

from lipcert.network.graph import Network
from lipcert.network.operators import Affine, Conv, ConvTranspose, Dense
from lipcert.proof.certificate import Witness
from lipcert.proof.claims import NORMS, Norm
from lipcert.proof.norms import operator_norm
from lipcert.proof.refusal import Refused
from lipcert.proof.rounding import product_up
from lipcert.proof.rules.base import Derivation, Rule, Step
from lipcert.proof.rules.composition import activation_factor, join


class Product(Rule):
    """Products of verified operator norms.

    Witness arrays: ``nodes`` (k,) int64, ascending indices of dense and convolution nodes of the normal form;
    ``norms`` (k,) float64, proposed upper bounds of their l2 norms. Both empty for l1 and linf.
    """

    id: ClassVar[str] = "product/v1"
    norms: ClassVar[frozenset[Norm]] = frozenset(NORMS)

    def prove(self, network: Network, norm: Norm, witness: Witness) -> Derivation:
        """Derive the bound; cost: that of verifying each norm (see `proof.norms`)."""
        proposals = read_witness(network, norm, witness)
        bounds = [1.0]
        steps: list[Step] = []
        for index, node in enumerate(network.nodes[1:], start=1):
            source = network.nodes[node.inputs[0]].shape
            if isinstance(node.op, Affine):
                factor = operator_norm(node.op, source, node.shape, norm, proposals.get(index))
            else:
                factor = activation_factor(node, source, norm)
            bounds.append(product_up(factor, join(node, norm, [bounds[i] for i in node.inputs])))
            steps.append(Step(index, factor, bounds[-1]))
        return Derivation(bounds[-1], tuple(steps))


def needs_witness(op: object) -> TypeGuard[Dense | Conv | ConvTranspose]:
    """Whether the l2 norm of an operator has to be proposed."""
    return isinstance(op, (Dense, Conv, ConvTranspose))


def read_witness(network: Network, norm: Norm, witness: Witness) -> dict[int, float]:
    """Return the proposed norm of each node that needs one.

    Raises:
        Refused: the witness is not of the form that the rule reads.
    """
    if set(witness) != {"nodes", "norms"}:
        raise Refused("the witness of a product has the arrays 'nodes' and 'norms'")
    nodes, norms = np.asarray(witness["nodes"]), np.asarray(witness["norms"])
    if nodes.dtype.kind != "i" or norms.dtype.kind != "f" or nodes.ndim != 1 or nodes.shape != norms.shape:
        raise Refused("'nodes' are integers and 'norms' as many real numbers")
    expected = [i for i, node in enumerate(network.nodes) if norm == "l2" and needs_witness(node.op)]
    if nodes.tolist() != expected:
        raise Refused(f"the witness covers the nodes {nodes.tolist()[:9]}, the network needs {expected[:9]}")
    return dict(zip(expected, norms.tolist(), strict=True))
