"""The figures of a report and of a comparison on the axes of matplotlib: for papers and notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from lipcert.report import figures, numbers, wording
from lipcert.report.comparison_figures import log_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lipcert.results import BoundResult, Report

COLOUR, SOFT, WASH, GAP = "#0d6b62", "#5b636e", "#dbe9e6", "#dedede"


def draw_accuracy(axes: Axes, report: Report) -> None:
    """Draw certified and attacked accuracy against eps, with the gap between them shaded."""
    axis = figures.accuracy_axis(report)
    lower, upper = figures.outlines(report, axis)
    low, high = ([(axis.end * x / 100, 100 - y) for x, y in points] for points in (lower, upper))
    axes.fill(*_columns([*low, (axis.end, 0.0), (0.0, 0.0)]), color=WASH, linewidth=0)
    if high:
        axes.fill(*_columns([*high, *reversed(low)]), color=GAP, linewidth=0, label="unknown")
        axes.plot(*_columns(high), color=SOFT, linestyle="--", label="left by the attack")
    axes.plot(*_columns(low), color=COLOUR, label="certified")
    for eps in report.eps:
        axes.axvline(eps, color=SOFT, linestyle=":", linewidth=0.8)
    axes.set(xlim=(0, axis.end), ylim=(0, 101), xlabel=f"ε, {wording.NORMS[report.norm]}", ylabel="samples in %")
    axes.legend(framealpha=1.0, edgecolor="none")


def draw_radii(axes: Axes, report: Report) -> None:
    """Draw the histogram of certified radii."""
    histogram = report.histogram
    if any(histogram.counts):
        axes.stairs(histogram.counts, histogram.edges, fill=True, color=COLOUR)
    end = histogram.edges[-1] if histogram.edges else 1.0
    for eps in report.eps:
        if eps <= end:
            axes.axvline(eps, color=SOFT, linestyle=":", linewidth=0.8)
    highest = max(histogram.counts, default=0) or 1
    axes.set(xlim=(0, end), ylim=(0, 1.05 * highest))
    axes.set(xlabel=f"certified radius, {wording.NORMS[report.norm]}", ylabel="samples")


def draw_layers(axes: Axes, bound: BoundResult) -> None:
    """Draw the factors of the layers that matter; the largest in colour."""
    bars = figures.layer_bars(bound.contributions)
    factors = [bar.layer.factor for bar in bars]
    colours = [COLOUR if bar.largest else SOFT for bar in bars]
    axes.barh(range(len(bars)), [factor - 1 for factor in factors], left=1.0, color=colours)
    axes.set_yticks(range(len(bars)), [bar.layer.node for bar in bars])
    axes.invert_yaxis()
    axes.set(xlabel=f"factor in {wording.NORMS[bound.norm]}")
    _logarithmic(axes, "x", (1.0, *factors))


def draw_ladder(axes: Axes, rows: Sequence[BoundResult], lower: float | None) -> None:
    """Draw the bounds on a logarithmic scale, the smallest at the bottom, and the lower bound as a line."""
    known = sorted((row.bound, row.method) for row in rows if row.bound)
    bounds = [bound for bound, _ in known]
    axes.plot(bounds, range(len(known)), "o", color=COLOUR)
    axes.set_yticks(range(len(known)), [method for _, method in known])
    if lower:
        axes.axvline(lower, color="black", linewidth=1.2, label=f"lower bound {numbers.down(lower, 4)}")
        axes.legend(framealpha=1.0, edgecolor="none")
    axes.grid(axis="x", color=GAP)
    axes.set(xlabel=f"bound, {wording.NORMS[rows[0].norm]}")
    _logarithmic(axes, "x", [*bounds, lower or 0.0])


def draw_trade(axes: Axes, rows: Sequence[BoundResult], lower: float | None) -> None:
    """Draw the bounds, over the lower bound where there is one, against the seconds they took."""
    places = [(max(row.seconds, figures.SHORTEST), row.bound / (lower or 1.0), row.method) for row in rows if row.bound]
    seconds, heights = [x for x, _, _ in places], [y for _, y, _ in places]
    axes.plot(seconds, heights, "o", color=COLOUR)
    for x, y, method in places:
        axes.annotate(method, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=7)
    axes.set(xlabel="seconds", ylabel="bound / lower bound" if lower else "bound")
    _logarithmic(axes, "x", seconds)
    _logarithmic(axes, "y", heights)


def _logarithmic(axes: Axes, which: Literal["x", "y"], values: Sequence[float]) -> None:
    """Give an axis a logarithmic scale that holds all values, with a few round numbers."""
    axis = log_axis(values, margin=0.12)
    span = axis.end - axis.start
    axes.set(**{f"{which}scale": "log", f"{which}lim": (10**axis.start, 10**axis.end)})
    line = axes.xaxis if which == "x" else axes.yaxis
    line.set_ticks([10 ** (axis.start + tick.at / 100 * span) for tick in axis.ticks], [t.label for t in axis.ticks])
    line.set_ticks([], minor=True)


def _columns(points: list[figures.Point]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
