"""Which figures a result has, and several of them side by side, as in a notebook."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from lipcert.errors import UsageError
from lipcert.report import drawings, figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lipcert.results import BoundResult, CompareResult, Report

SIZE = (5.0, 3.2)  # inches: a column of a paper
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "lipcert",
}
Drawing = Callable[["Axes"], None]
Drawings = Mapping[str, Drawing]


def report_drawings(report: Report) -> Drawings:
    """Return the figures of a report: ``accuracy``, ``radii`` and, where there are factors of layers, ``layers``."""
    named: dict[str, Drawing] = {
        "accuracy": lambda axes: drawings.draw_accuracy(axes, report),
        "radii": lambda axes: drawings.draw_radii(axes, report),
    }
    return {**named, **bound_drawings(report.bound)}


def comparison_drawings(result: CompareResult) -> Drawings:
    """Return the figures of a comparison, ``ladder`` and ``trade``; none where there is no bound."""
    if not any(row.bound for row in result.rows):
        return {}
    return {
        "ladder": lambda axes: drawings.draw_ladder(axes, result.rows, result.lower_bound),
        "trade": lambda axes: drawings.draw_trade(axes, result.rows, result.lower_bound),
    }


def bound_drawings(result: BoundResult) -> Drawings:
    """Return the figure of a bound, ``layers``, where there are factors of layers."""
    if not figures.layer_bars(result.contributions):
        return {}
    return {"layers": lambda axes: drawings.draw_layers(axes, result)}


def report_figure(report: Report) -> Figure:
    """Return accuracy against eps and the histogram of radii as one matplotlib figure."""
    named = report_drawings(report)
    return drawn({name: named[name] for name in ("accuracy", "radii")})


def compare_figure(result: CompareResult) -> Figure:
    """Return the figures of a comparison as one matplotlib figure; raises UsageError where there is no bound."""
    return drawn(comparison_drawings(result))


def bound_figure(result: BoundResult) -> Figure:
    """Return the factors of the layers as a matplotlib figure; raises UsageError where there are none."""
    return drawn(bound_drawings(result))


def drawn(named: Drawings) -> Figure:
    """Return a matplotlib figure with all drawings, one beside the other; raises UsageError where there are none."""
    if not named:
        raise UsageError("there is nothing to draw: the result has no bound or no factors of layers")
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(SIZE[0] * len(named), SIZE[1]), layout="constrained")
        for axes, draw in zip(figure.subplots(1, len(named), squeeze=False)[0], named.values(), strict=True):
            draw(axes)
    return figure
