"""The product rule in ball arithmetic; see `proof.rules.product` for the theorem and the witness."""

from __future__ import annotations

from typing import ClassVar

from flint import arb, ctx

from lipcert.network.graph import Network, Node
from lipcert.network.operators import Affine
from lipcert.proof.certificate import Witness
from lipcert.proof.claims import Norm
from lipcert.proof.exact.balls import Ball, largest, upper
from lipcert.proof.exact.definite import PRECISIONS
from lipcert.proof.exact.norms import operator_norm
from lipcert.proof.rules.base import Derivation, Rule
from lipcert.proof.rules.composition import activation_law, joining_norm
from lipcert.proof.rules.product import Product, read_witness


class ExactProduct(Rule):
    """Products of operator norms, each proved on the operator's whole matrix."""

    id: ClassVar[str] = Product.id
    norms: ClassVar[frozenset[Norm]] = Product.norms

    def prove(self, network: Network, norm: Norm, witness: Witness) -> Derivation:
        """Derive the bound; cost: one elimination per dense or convolution operator."""
        proposed = read_witness(network, norm, witness)
        with ctx.workprec(PRECISIONS[-1]):
            bounds = [arb(1)]
            for index, node in enumerate(network.nodes[1:], start=1):
                source = network.nodes[node.inputs[0]].shape
                if isinstance(node.op, Affine):
                    factor = operator_norm(node, source, norm, proposed.get(index))
                else:
                    number, root = activation_law(node, source, norm)
                    factor = arb(number).sqrt() if root else arb(number)
                bounds.append(factor * _join(node, norm, [bounds[i] for i in node.inputs]))
            return Derivation(upper(bounds[-1]))


def _join(node: Node, norm: Norm, bounds: list[Ball]) -> Ball:
    match joining_norm(node, norm):
        case "l1":
            return sum(bounds, arb(0))
        case "l2":
            return sum((bound * bound for bound in bounds), arb(0)).sqrt()
        case "linf":
            return largest(bounds)
