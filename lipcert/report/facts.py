"""Where a result comes from: what is needed to repeat and to judge it, name by name."""

from __future__ import annotations

from typing import NamedTuple

from lipcert.report import numbers
from lipcert.results import BoundResult, ModelInfo, RegressionReport, Report


class Fact(NamedTuple):
    """A name and a value; `exact` where it is to be compared letter by letter."""

    name: str
    value: str
    exact: bool = False


def network(model: ModelInfo) -> list[Fact]:
    """Return which network a result is about."""
    parameters = "" if model.parameters is None else f"{numbers.count(model.parameters)} parameters, "
    return [
        Fact("Network", model.path),
        *([Fact("SHA-256 of the file", model.sha256, exact=True)] if model.sha256 else []),
        Fact("Weights digest", model.weights_digest, exact=True),
        Fact("Graph digest", model.graph_digest, exact=True),
        *([Fact("Claims speak of", model.statement)] if model.statement else []),
        Fact("Shapes", f"{_shape(model.input_shape)} to {_shape(model.output_shape)}, {model.dtype}"),
        Fact("Size", f"{parameters}{numbers.count(model.hidden_neurons)} hidden neurons"),
    ]


def provenance(report: Report | RegressionReport) -> list[Fact]:
    """Return everything that a report rests on, as far as it knows it."""
    origin = report.provenance
    if origin is None:
        return network(report.model)
    method, device = (
        (report.method, report.device) if isinstance(report, Report) else (", ".join(report.methods), "cpu")
    )
    torch = f", torch {origin.torch}" if origin.torch else ""
    settings = [f"{name} = {value}" for name, value in origin.settings.items() if value is not None]
    optional = (
        Fact("SHA-256 of the data", origin.data_sha256 or "", exact=True),
        Fact("SHA-256 of the samples", origin.samples_sha256 or "", exact=True),
        Fact("Solver", _solver(report.bound)),
        Fact("Settings", "; ".join(settings)),
        Fact("Per-sample records", report.records or ""),
    )
    return [
        *network(report.model),
        Fact("Data", origin.data),
        *(fact for fact in optional[:2] if fact.value),
        Fact("Method", f"{method}; the global bound by {report.bound.method}"),
        Fact("Bound, exactly", report.bound.bound_hex or numbers.MISSING, exact=True),
        Fact("Arithmetic", origin.arithmetic),
        *(fact for fact in optional[2:] if fact.value),
        Fact("Software", f"lipcert {origin.lipcert}, Python {origin.python}, numpy {origin.numpy}{torch}"),
        Fact("Machine", f"{origin.platform}, {device}"),
        Fact("Started", origin.started),
    ]


def _solver(bound: BoundResult) -> str:
    """Return what the solver said of itself."""
    solver = bound.solver
    if solver is None:
        return ""
    gap = "" if solver.gap is None else f", gap {numbers.near(solver.gap)}"
    return f"{solver.name}: {solver.status}{gap} (its own words; no bound rests on them)"


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "one number"
