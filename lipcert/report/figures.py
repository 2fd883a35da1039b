"""The geometry of the figures: from numbers to positions in per cent of a plot, x to the right, y downwards.

Only shapes are drawn in these stretched coordinates; labels are text of the page beside them, so that they keep
their size on every screen.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from lipcert.report import numbers
from lipcert.results import Histogram, LayerContribution, Report

CORNERS = 400  # more steps than this nobody sees
LAYERS = 40
SHORTEST = 1e-3  # seconds: shorter times are drawn as this
Point = tuple[float, float]


@dataclass(frozen=True)
class Tick:
    """A labelled position on an axis, in per cent from its start."""

    at: float
    label: str


@dataclass(frozen=True)
class Axis:
    """A linear axis from 0 to `end`."""

    end: float
    ticks: tuple[Tick, ...]

    def place(self, value: float) -> float:
        """Return the position of a value in per cent."""
        return 100.0 * (min(value, self.end) / self.end)


SHARES = Axis(1.0, tuple(Tick(25.0 * k, f"{25 * k} %") for k in range(5)))


@dataclass(frozen=True)
class AccuracyFigure:
    """Certified and attacked accuracy against eps; paths in per cent.

    Attributes:
        certified, attacked: outlines of the two step functions; `attacked` is empty where no attack ran.
        proved, gap: areas below the first and between the two.
        marks: the eps that were asked for, with both accuracies' places where they are known.
    """

    x: Axis
    y: Axis
    certified: str
    attacked: str
    proved: str
    gap: str
    marks: tuple[tuple[float, float, float | None], ...]


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram: left edge, width and height in per cent, and what it stands for."""

    left: float
    width: float
    height: float
    label: str


@dataclass(frozen=True)
class HistogramFigure:
    """Certified radii: bars and the places of the eps asked for."""

    x: Axis
    y: Axis
    bars: tuple[Bar, ...]
    marks: tuple[Tick, ...]


@dataclass(frozen=True)
class LayerBar:
    """A layer's factor as a bar on a logarithmic scale that starts at factor 1: `left` to `left + width`."""

    layer: LayerContribution
    left: float
    width: float
    largest: bool


def linear_axis(largest: float, wanted: int = 5) -> Axis:
    """Return an axis from 0 to a bit beyond `largest`, with about `wanted` round ticks."""
    if largest <= 0:
        return Axis(1.0, (Tick(0.0, "0"), Tick(100.0, "1")))
    power = 10.0 ** math.floor(math.log10(largest / wanted))
    step = next(power * factor for factor in (1, 2, 5, 10) if largest / (power * factor) <= wanted)
    end = min(largest * 1.02, sys.float_info.max)
    ticks = tuple(Tick(100.0 * (k * step / end), f"{k * step:.6g}") for k in range(int(end / step) + 1))
    return Axis(end, ticks)


def accuracy_figure(report: Report) -> AccuracyFigure:
    """Draw both accuracies as the step functions that are true between the measured points.

    Both fall with eps. So between two points the certified accuracy is at least the later value (a lower bound
    stays one), and the attacked accuracy is at most the earlier one (who falls at eps falls at all larger ones).
    """
    x, y = accuracy_axis(report), SHARES
    lower, upper = outlines(report, x)
    marks = []
    for eps in report.eps:
        key = numbers.eps_key(eps)
        attacked = report.empirical_robust_accuracy.get(key)
        place = None if attacked is None else 100 - y.place(attacked)
        marks.append((x.place(eps), 100 - y.place(report.certified_accuracy[key]), place))
    floor = [(100.0, 100.0), (0.0, 100.0)]
    return AccuracyFigure(
        x,
        y,
        svg_path(lower),
        svg_path(upper),
        svg_path([*lower, *floor], closed=True),
        svg_path([*upper, *reversed(lower)], closed=True) if upper else "",
        tuple(marks),
    )


def accuracy_axis(report: Report) -> Axis:
    """Return the axis of eps: beyond those asked for, and as far as 2 % of the samples are certified."""
    asked = 1.25 * max(report.eps, default=0.0)
    left = [eps for eps, share in report.curve if share >= 0.02]
    return linear_axis(max([asked, *left]), wanted=7)


def outlines(report: Report, x: Axis) -> tuple[list[Point], list[Point]]:
    """Return the corners of certified and attacked accuracy, in per cent; the second is empty where no attack ran.

    Between two points the certified accuracy is drawn with the later value, the attacked one with the earlier.
    """
    lower = certified_outline(report.curve, x)
    shares = sorted((float(key), share) for key, share in report.empirical_robust_accuracy.items())
    if not shares:
        return lower, []
    measured = [(0.0, report.clean_accuracy), *shares]
    return lower, falling([(x.place(eps), 100 - SHARES.place(share)) for eps, share in measured], keep_earlier=True)


def certified_outline(curve: Sequence[Point], x: Axis) -> list[Point]:
    """Return the corners of certified accuracy in per cent, given pairs (eps, fraction)."""
    shown = _thin(_until(sorted(curve), x.end))
    return falling([(x.place(eps), 100 - SHARES.place(share)) for eps, share in shown], keep_earlier=False)


def histogram_figure(histogram: Histogram, eps: Sequence[float]) -> HistogramFigure:
    """Draw the counts between edges; eps beyond the last edge are left out."""
    last = histogram.edges[-1] if histogram.edges else 0.0
    x, y = linear_axis(last, wanted=7), linear_axis(max(histogram.counts, default=0))
    bars = tuple(
        Bar(x.place(left), x.place(right) - x.place(left), y.place(count), f"{left:.4g} to {right:.4g}: {count}")
        for left, right, count in zip(histogram.edges[:-1], histogram.edges[1:], histogram.counts, strict=True)
    )
    return HistogramFigure(x, y, bars, tuple(Tick(x.place(e), numbers.eps_key(e)) for e in eps if e <= x.end))


def layer_bars(layers: Sequence[LayerContribution]) -> list[LayerBar]:
    """Draw the factors that matter; the bound is their product along a path, so logarithms add up.

    Left out are factors of 1 or 0, and beyond `LAYERS` those nearest to 1.
    """
    moving = [layer for layer in layers if layer.factor not in (0.0, 1.0)]
    weights = sorted((abs(math.log10(layer.factor)) for layer in moving), reverse=True)
    least = weights[LAYERS - 1] if len(weights) > LAYERS else 0.0
    moving = [layer for layer in moving if abs(math.log10(layer.factor)) >= least]
    logs = [math.log10(layer.factor) for layer in moving]
    low, high = min([0.0, *logs]), max([0.0, *logs])
    span = (high - low) or 1.0
    return [
        LayerBar(layer, 100 * (min(log, 0.0) - low) / span, 100 * abs(log) / span, log == max(logs) > 0)
        for layer, log in zip(moving, logs, strict=True)
    ]


def falling(points: Sequence[Point], *, keep_earlier: bool) -> list[Point]:
    """Return the corners of a falling step function over 0..100 through points of rising x (y downwards).

    keep_earlier: each value holds until the next point and beyond the last. Otherwise each holds from the point
    before, and beyond the last there is nothing (the floor, 100).
    """
    if not points:
        return [(0.0, 100.0), (100.0, 100.0)]
    corners = [(0.0, points[0][1])]
    for x, y in points:
        before = corners[-1]
        corners += [(x, before[1]) if keep_earlier else (before[0], y), (x, y)]
    x, y = corners[-1]
    if x >= 100.0:
        return corners
    return [*corners, (100.0, y)] if keep_earlier else [*corners, (x, 100.0), (100.0, 100.0)]


def _until(curve: Sequence[Point], end: float) -> list[Point]:
    """Keep the points up to `end` and the next one, whose value holds there."""
    inside = [point for point in curve if point[0] < end]
    return [*inside, *curve[len(inside) : len(inside) + 1]]


def _thin(curve: Sequence[Point]) -> list[Point]:
    """Keep about `CORNERS` points and the last; fewer points only lower a step function that drops early."""
    stride = max(1, len(curve) // CORNERS)
    return [point for k, point in enumerate(curve) if k % stride == 0 or k == len(curve) - 1]


def svg_path(points: Sequence[Point], *, closed: bool = False) -> str:
    """Return the points as an SVG path with two decimals, repetitions left out."""
    texts: list[str] = []
    for x, y in points:
        text = f"{x:.2f} {y:.2f}"
        if not texts or texts[-1] != text:
            texts.append(text)
    return f"M{'L'.join(texts)}{'Z' if closed else ''}" if texts else ""
