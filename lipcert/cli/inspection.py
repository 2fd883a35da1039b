"""What a network is made of, as a document."""

from __future__ import annotations

import numpy as np

from lipcert.bounds.documents import model_info
from lipcert.bounds.norms import certified_norm
from lipcert.errors import UnsupportedError
from lipcert.network.activations import slope_interval
from lipcert.network.graph import Network, Node, Shape
from lipcert.network.linear import coefficients, offset
from lipcert.network.operators import Affine, Elementwise
from lipcert.proof.claims import Norm
from lipcert.proof.norms import operator_norm
from lipcert.proof.rules.product import needs_witness
from lipcert.results import InspectResult, NodeInfo, UnsupportedPart


def describe(network: Network) -> InspectResult:
    """Describe every node of a network as read; costs a verified norm for every affine one.

    Level of the norms: verified.
    """
    return InspectResult(
        path=network.source.path,
        model=model_info(network),
        nodes=tuple(_node(network, node) for node in network.nodes),
        unsupported=(),
        notes=network.notes,
    )


def describe_unsupported(path: str, error: UnsupportedError) -> InspectResult:
    """Describe what keeps a model from being read."""
    parts = tuple(UnsupportedPart(where=item.where, what=item.what, why=item.why) for item in error.items)
    return InspectResult(path=path, model=None, nodes=(), unsupported=parts, notes=())


def _node(network: Network, node: Node) -> NodeInfo:
    op = node.op
    source = network.nodes[node.inputs[0]].shape if node.inputs else node.shape
    return NodeInfo(
        name=node.name,
        kind=op.kind,
        shape=node.shape,
        parameters=_parameters(node),
        slopes=_slopes(op, node.name) if isinstance(op, Elementwise) else None,
        norm_l2=_norm(op, source, node.shape, "l2") if isinstance(op, Affine) else None,
        norm_linf=_norm(op, source, node.shape, "linf") if isinstance(op, Affine) else None,
    )


def _parameters(node: Node) -> int:
    """Count the numbers that an operator holds; a broadcast zero offset counts as none."""
    if isinstance(node.op, Elementwise):
        return sum(int(parameter.size) for parameter in node.op.params)
    if not isinstance(node.op, Affine):
        return 0
    held = [part for part in (coefficients(node.op), offset(node.op)) if part is not None]
    return sum(int(part.mid.size) for part in held if part.mid.size > 1 or part.mid.any())


def _slopes(op: Elementwise, name: str) -> tuple[float, float]:
    alpha, beta = slope_interval(op, name)
    return float(np.min(alpha)), float(np.max(beta))


def _norm(op: Affine, before: Shape, after: Shape, norm: Norm) -> float:
    proposal = certified_norm(op, before, after).value if norm == "l2" and needs_witness(op) else None
    return operator_norm(op, before, after, norm, proposal)
