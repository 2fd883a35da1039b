"""From bounds to result documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lipcert.network.graph import Network
from lipcert.proof.claims import Norm
from lipcert.proof.rules import Step
from lipcert.proof.statement import statement
from lipcert.results import BoundResult, LayerContribution, ModelInfo, SolverInfo

if TYPE_CHECKING:  # all methods stand behind the engine, torch among them: who describes a network needs none
    from lipcert.bounds.engine import Bound, Row


def model_info(network: Network) -> ModelInfo:
    """Describe a network as read."""
    return ModelInfo(
        path=network.source.path,
        sha256=network.source.sha256,
        graph_digest=network.graph_digest,
        weights_digest=network.weights_digest,
        parameters=network.source.parameters,
        hidden_neurons=network.hidden_neurons,
        input_shape=network.input_shape,
        output_shape=network.output_shape,
        dtype=network.dtype,
        statement=statement(network),
    )


def bound_result(network: Network, bound: Bound, certificate: str | None = None) -> BoundResult:
    """Describe a bound; `certificate` is the path it was written to, if it was."""
    solver = bound.solver
    return BoundResult(
        model=model_info(network),
        norm=bound.norm,
        method=bound.method,
        bound=bound.value,
        bound_hex=bound.value.hex(),
        level=bound.level.label,
        lower_bound=bound.lower,
        ratio=bound.ratio,
        quantity=bound.quantity,
        margins=bound.certificate.claim.table,
        seconds=bound.seconds,
        certificate=certificate,
        solver=None if solver is None else SolverInfo(name=solver.name, status=solver.status, gap=solver.gap),
        contributions=contributions(bound.subject, bound.steps),
        notes=bound.notes,
    )


def row_result(network: Network, row: Row, norm: Norm, lower: float | None) -> BoundResult:
    """Describe one row of a comparison, an error included."""
    if row.bound is not None:
        found = bound_result(network, row.bound)
        ratio = row.bound.value / lower if lower else None
        return found.model_copy(update={"lower_bound": lower, "ratio": ratio, "memory": row.memory})
    return BoundResult(
        model=model_info(network),
        norm=norm,
        method=row.method,
        bound=None,
        bound_hex=None,
        level=None,
        lower_bound=lower,
        ratio=None,
        seconds=row.seconds,
        memory=row.memory,
        certificate=None,
        solver=None,
        error=row.error,
    )


def contributions(network: Network, steps: Sequence[Step]) -> tuple[LayerContribution, ...]:
    """Describe the steps of a derivation about `network`."""
    return tuple(
        LayerContribution(
            node=network.nodes[step.node].name,
            kind=network.nodes[step.node].op.kind,
            factor=step.factor,
            cumulative=step.cumulative,
        )
        for step in steps
    )
