"""Figures keep their promise between the measured points: the certified curve is low, the attacked one high."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_documents import make_bound, make_report

from lipcert.report.comparison_figures import ladder, trade_figure
from lipcert.report.figures import accuracy_figure, histogram_figure, layer_bars, linear_axis
from lipcert.results import Histogram, LayerContribution

SLACK = 0.011  # per cent: paths are written with two decimals


def corners(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", path)]


def values_at(points: list[tuple[float, float]], x: float) -> list[float]:
    """Heights in per cent of a step path over x, from below or above at its jumps."""
    found = []
    for (x0, y0), (x1, y1) in pairwise(points):
        assert x0 <= x1, "a step path never goes back"
        assert x0 == x1 or y0 == y1, "a step path has only level and upright parts"
        if x0 <= x <= x1:
            found += [100 - y0, 100 - y1]
    return found


@pytest.mark.parametrize("points", [5, 201, 5000])
def test_the_certified_curve_is_never_above_the_truth(points: int) -> None:
    report = make_report(3000, points=points)
    fine = make_report(3000, points=20_001).curve
    figure = accuracy_figure(report)
    path = corners(figure.certified)
    for eps, share in fine[:: len(fine) // 400]:
        if eps < figure.x.end and 100 * eps / figure.x.end < 99.9:
            assert min(values_at(path, 100 * eps / figure.x.end + SLACK)) <= 100 * share + SLACK


def test_the_attacked_curve_holds_each_value_until_the_next() -> None:
    report = make_report(3000)
    figure = accuracy_figure(report)
    path = corners(figure.attacked)
    keys = ["0.1", "0.3", "0.5"]
    for eps, key in ((0.05, None), (0.2, "0.1"), (0.4, "0.3"), (0.55, "0.5")):
        expected = report.clean_accuracy if key is None else report.empirical_robust_accuracy[key]
        assert values_at(path, 100 * eps / figure.x.end)[0] == pytest.approx(100 * expected, abs=SLACK)
    assert len(figure.marks) == len(keys)


@given(st.floats(1e-300, 1.7976931348623157e308), st.integers(3, 8))
def test_axes_have_a_few_round_ticks_and_hold_everything(largest: float, wanted: int) -> None:
    axis = linear_axis(largest, wanted)
    assert axis.end >= largest
    assert 2 <= len(axis.ticks) <= wanted + 2
    assert axis.ticks[0].at == 0
    assert all(0 <= tick.at <= 100 for tick in axis.ticks)


def test_histogram_bars_fill_the_axis_in_order() -> None:
    figure = histogram_figure(Histogram(edges=(0.0, 0.5, 1.0, 1.5), counts=(4, 0, 2)), (0.5, 9.0))
    assert [round(bar.height / figure.bars[0].height, 3) for bar in figure.bars] == [1, 0, 0.5]
    assert figure.bars[1].left == pytest.approx(figure.bars[0].width)
    assert [mark.label for mark in figure.marks] == ["0.5"]


def test_layer_bars_leave_out_what_does_nothing_and_mark_the_largest() -> None:
    bars = layer_bars(make_bound().contributions)
    assert [bar.layer.factor for bar in bars] == [4.117, 3.0211, 0.73, 3.4712]
    assert [bar.largest for bar in bars] == [True, False, False, False]
    assert all(0 <= bar.left <= bar.left + bar.width <= 100 + 1e-9 for bar in bars)


def test_layers_that_only_shrink_have_no_largest() -> None:
    shrink = [LayerContribution(node="a", kind="Scale", factor=0.5, cumulative=0.5)]
    assert [bar.largest for bar in layer_bars(shrink)] == [False]


@given(st.lists(st.floats(1e-6, 1e12), min_size=1, max_size=8), st.none() | st.floats(1e-9, 1e12))
def test_the_ladder_keeps_order_and_stays_inside(values: list[float], lower: float | None) -> None:
    found = ladder(sorted(values), lower)
    assert list(found.places) == sorted(found.places)
    assert all(0 <= place <= 100 for place in (*found.places, found.lower))
    assert len(found.ticks) <= 12
    assert [tick.at for tick in found.ticks] == sorted(tick.at for tick in found.ticks)


ROWS = st.lists(st.tuples(st.floats(1.0, 1e9), st.floats(0.0, 1e4)), min_size=1, max_size=12)


@given(ROWS, st.sampled_from([None, 0.0, 0.5, 1.0]))
def test_points_of_time_and_tightness_keep_their_order(pairs: list[tuple[float, float]], lower: float | None) -> None:
    rows = [make_bound(f"m{k}", value).model_copy(update={"seconds": s}) for k, (value, s) in enumerate(sorted(pairs))]
    figure = trade_figure(rows, lower)
    assert [spot.rank for spot in figure.spots] == list(range(1, len(rows) + 1))
    for first, second in pairwise(figure.spots):
        assert first.y >= second.y - 1e-9, "a larger bound stands higher"
    for spot, row in zip(figure.spots, rows, strict=True):
        assert 0 <= spot.x <= 100 and 0 <= spot.y <= 100
        for other, rival in zip(figure.spots, rows, strict=True):
            if row.seconds < rival.seconds:
                assert spot.x <= other.x


@given(ROWS)
def test_methods_in_colour_are_those_that_no_faster_one_beats(pairs: list[tuple[float, float]]) -> None:
    rows = [make_bound(value=value).model_copy(update={"seconds": s}) for value, s in sorted(pairs)]
    spots = trade_figure(rows, 0.5).spots
    assert any(spot.best for spot in spots)
    for spot in spots:
        beaten = any(other.x <= spot.x and other.y > spot.y + 0.1 for other in spots)
        assert not (spot.best and beaten)
        if not spot.best:
            assert any(other.x <= spot.x and other.y >= spot.y - 0.1 and other.best for other in spots)


def test_numbers_beside_points_do_not_lie_on_each_other() -> None:
    crowd = [(1.26, 0.9), (1.26, 1.1), (1.26, 1.9), (1.33, 1.2), (1.36, 1.5), (2.0, 0.02)]
    rows = [make_bound(value=value).model_copy(update={"seconds": s}) for value, s in crowd]
    labels = [spot.label for spot in trade_figure(rows, 1.0).spots]
    for k, (x, y) in enumerate(labels):
        for other in labels[:k]:
            assert abs(other[0] - x) > 3 or abs(other[1] - y) > 6


def test_the_lower_bound_is_the_floor_of_the_figure() -> None:
    rows = [make_bound(value=24.18).model_copy(update={"seconds": 1.0}), make_bound(value=30.0)]
    assert trade_figure(rows, 24.18).spots[0].y == pytest.approx(100.0)
    assert trade_figure(rows, None).spots[0].y < 100.0
