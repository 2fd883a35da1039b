"""``lipcert inspect``: what a model is made of, and what in it is unsupported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lipcert.cli import show
from lipcert.cli.command import Command
from lipcert.cli.options import Model
from lipcert.errors import UnsupportedError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from lipcert.results import InspectResult, NodeInfo


@dataclass(frozen=True, kw_only=True)
class InspectOptions(Model):
    """Options of ``lipcert inspect``."""


def run(options: InspectOptions) -> int:
    """Show the layers of a model: shapes, slopes, parameters, verified norms, and what is unsupported."""
    try:
        network = options.read()
    except UnsupportedError as error:
        from lipcert.cli.inspection import describe_unsupported

        refused = describe_unsupported(options.model, error)
        if options.json:
            show.document(refused)
        else:
            show.result(show.title(f"{refused.path}: unsupported"), unsupported(refused))
        raise UnsupportedError(error.items) from None
    from lipcert.cli.inspection import describe

    if show.has_bars(quiet=options.quiet):
        with show.console(stderr=True).status("bounding the norm of every layer"):
            result = describe(network)
    else:
        result = describe(network)
    if options.json:
        show.document(result)
    else:
        show.result(*overview(result))
    return 0


def overview(result: InspectResult) -> list[RenderableType]:
    """Return the model in a few lines, its nodes as a table, and what the reader remarked."""
    from rich.text import Text

    from lipcert.report import numbers

    model = result.model
    assert model is not None
    parameters = "unknown" if model.parameters is None else numbers.count(model.parameters)
    facts = show.facts()
    facts.add_row("model", result.path)
    facts.add_row("sha256", model.sha256 or "no file")
    facts.add_row("function", f"{_shape(model.input_shape)} → {_shape(model.output_shape)}, {model.dtype}")
    facts.add_row("size", f"{parameters} parameters, {numbers.count(model.hidden_neurons)} hidden neurons")
    parts: list[RenderableType] = [facts, _nodes(result)]
    parts.append(Text("norms are verified upper bounds", style="dim"))
    parts += [Text(f"note: {note}") for note in result.notes]
    return parts


def _nodes(result: InspectResult) -> Table:
    table = show.table()
    table.add_column("node", overflow="fold")
    table.add_column("operator")
    table.add_column("output shape")
    table.add_column("slopes")
    for name in ("parameters", "l2 norm ≤", "linf norm ≤"):
        table.add_column(name, justify="right")
    for node in result.nodes:
        table.add_row(*_row(node))
    return table


def _row(node: NodeInfo) -> tuple[str, ...]:
    from lipcert.report import numbers

    slopes = "" if node.slopes is None else f"[{numbers.down(node.slopes[0])}, {numbers.up(node.slopes[1])}]"
    norms = ("" if norm is None else numbers.up(norm) for norm in (node.norm_l2, node.norm_linf))
    parameters = numbers.count(node.parameters) if node.parameters else ""
    return node.name, node.kind, _shape(node.shape), slopes, parameters, *norms


def unsupported(result: InspectResult) -> Table:
    """Return everything that keeps the model from being read."""
    table = show.table()
    for name in ("node", "operator", "why"):
        table.add_column(name, overflow="fold")
    for part in result.unsupported:
        table.add_row(part.where, part.what, part.why)
    return table


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(str(size) for size in shape) or "scalar"


COMMAND = Command("inspect", InspectOptions, run, ("lipcert inspect digits.onnx",))
