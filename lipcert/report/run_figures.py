"""The geometry of the curves of several runs, over each other."""

from __future__ import annotations

from dataclasses import dataclass

from lipcert.report.figures import SHARES, Axis, certified_outline, linear_axis, svg_path
from lipcert.results import RunRow, RunsResult

STYLES = 6  # of lines; more runs repeat them


@dataclass(frozen=True)
class Line:
    """The certified accuracy of a run as an outline in per cent; `style` is one of `STYLES`."""

    row: RunRow
    path: str
    style: int


@dataclass(frozen=True)
class CurvesFigure:
    """Certified accuracy against eps, one line for each run, and the places of the eps asked for."""

    x: Axis
    y: Axis
    lines: tuple[Line, ...]
    marks: tuple[float, ...]


def curves_figure(result: RunsResult) -> CurvesFigure:
    """Draw the certified accuracies over each other, as the step functions that are true between measured points."""
    reach = [eps for row in result.rows for eps, share in row.curve if share >= 0.02]
    x = linear_axis(max([1.25 * max(result.eps, default=0.0), *reach]), wanted=7)
    lines = [
        Line(row, svg_path(certified_outline(row.curve, x)), number % STYLES) for number, row in enumerate(result.rows)
    ]
    return CurvesFigure(x, SHARES, tuple(lines), tuple(x.place(eps) for eps in result.eps))
