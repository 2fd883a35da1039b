"""The geometry of the figures of a comparison: bounds on a logarithmic scale, and time against tightness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lipcert.report.figures import SHORTEST, Point, Tick, falling, linear_axis, svg_path
from lipcert.results import BoundResult

WIDTH, LINE = 3.2, 6.5  # of a number beside a point, in per cent of the plot
AROUND = ((3.2, 0.0), (0.0, -6.5), (0.0, 6.5), (-3.2, 0.0), (3.2, -6.5), (3.2, 6.5), (-3.2, -6.5), (0.0, -13.0))
VISIBLE = 0.1  # per cent of the plot


@dataclass(frozen=True)
class LogAxis:
    """A logarithmic axis; `start` and `end` are decimal logarithms."""

    start: float
    end: float
    ticks: tuple[Tick, ...]

    def place(self, value: float) -> float:
        """Return the position of a value in per cent; 0 stands at the start."""
        return 100 * (math.log10(value) - self.start) / (self.end - self.start) if value > 0 else 0.0


@dataclass(frozen=True)
class Spot:
    """A method in the plane of time and tightness, in per cent from the left and from the top.

    Attributes:
        rank: place in the ladder, from 1. label: where that number stands, beside, above or below the point.
        best: no faster method has a bound that is visibly smaller.
    """

    name: str
    rank: int
    x: float
    y: float
    label: Point
    best: bool


@dataclass(frozen=True)
class TradeFigure:
    """Bounds against seconds, both logarithmic; the lower bound, where there is one, is the floor.

    Attributes:
        best: outline of the smallest bound that is there after so much time.
    """

    x: LogAxis
    y: LogAxis
    spots: tuple[Spot, ...]
    best: str


@dataclass(frozen=True)
class Ladder:
    """Places of bounds and of their lower bound on one logarithmic axis, in per cent."""

    places: tuple[float, ...]
    lower: float
    ticks: tuple[Tick, ...]


def ladder(values: Sequence[float], lower: float | None) -> Ladder:
    """Place bounds and the lower bound on one logarithmic axis with room at both ends; 0 stands at its start."""
    axis = log_axis((*values, lower or 0.0))
    return Ladder(tuple(axis.place(value) for value in values), axis.place(lower or 0.0), axis.ticks)


def trade_figure(rows: Sequence[BoundResult], lower: float | None) -> TradeFigure:
    """Draw rows of rising bounds: seconds to the right, bound (over the lower bound, where there is one) upwards."""
    seconds = [max(row.seconds, SHORTEST) for row in rows]
    heights = [(row.bound or 0.0) / (lower or 1.0) for row in rows]
    x, y = log_axis(seconds, margin=0.12), log_axis(heights, floor=1.0 if lower else None)
    places = [(x.place(time), 100 - y.place(height)) for time, height in zip(seconds, heights, strict=True)]
    best: list[Point] = []
    for point in sorted(places, key=lambda p: (p[0], -p[1])):
        if not best or point[1] > best[-1][1] + VISIBLE:
            best.append(point)
    spots: list[Spot] = []
    for rank, (row, place) in enumerate(zip(rows, places, strict=True), start=1):
        label = _beside(place, [*(other for other in places if other != place), *(spot.label for spot in spots)])
        spots.append(Spot(row.method, rank, *place, label, place in best))
    return TradeFigure(x, y, tuple(spots), svg_path(falling(best, keep_earlier=True)[1:]))


def _beside(place: Point, taken: Sequence[Point]) -> Point:
    """Return the first place around a point that touches nothing that is there already; else the first of all."""
    around = [(place[0] + across, place[1] + down) for across, down in AROUND]
    return next(
        (p for p in around if all(abs(p[0] - x) >= WIDTH or abs(p[1] - y) >= LINE for x, y in taken)), around[0]
    )


def log_axis(values: Sequence[float], *, floor: float | None = None, margin: float = 0.08) -> LogAxis:
    """Return a logarithmic axis that holds all positive values, with room at both ends, or none below a floor."""
    known = [value for value in (*values, floor or 0.0) if value > 0] or [1.0]
    start, end = math.log10(min(known)), math.log10(max(known))
    room = max(0.02, margin * (end - start))
    bare = LogAxis(start if floor == min(known) else start - room, end + room, ())
    inside = [value for value in _round_values(bare.start, bare.end) if 0 <= bare.place(value) <= 100]
    return replace(bare, ticks=tuple(Tick(bare.place(value), f"{value:.6g}") for value in inside))


def _round_values(start: float, end: float) -> list[float]:
    """Return a few round numbers whose decimal logarithms spread over start..end."""
    if end - start < 1:
        axis = linear_axis(10**end - 10**start, wanted=4)
        step = float(axis.ticks[1].label)
        return [k * step for k in range(math.ceil(10**start / step), math.floor(10**end / step) + 1)]
    stride = math.ceil((end - start) / 6)
    return [10.0**k for k in range(math.ceil(start), math.floor(end) + 1) if k % stride == 0]
