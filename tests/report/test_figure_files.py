"""Figures as files: there, of the right kind, the same every time, and true to the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image
from sample_documents import make_bound, make_comparison, make_refusal, make_report

from lipcert.errors import UsageError
from lipcert.report import plots
from lipcert.report.figure_files import write_figures
from lipcert.results import Histogram


def test_every_figure_is_written_as_png_and_svg_and_the_same_twice(tmp_path: Path) -> None:
    named = {**plots.report_drawings(make_report(500)), **plots.comparison_drawings(make_comparison())}
    files = write_figures(named, tmp_path / "one")
    assert sorted(path.name for path in files) == sorted(
        f"{name}.{kind}" for name in ("accuracy", "radii", "layers", "ladder", "trade") for kind in ("png", "svg")
    )
    again = write_figures(named, tmp_path / "two")
    for path, other in zip(files, again, strict=True):
        assert path.read_bytes() == other.read_bytes()
        if path.suffix == ".png":
            with Image.open(path) as picture:
                assert picture.width >= 800
        else:
            assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_words_of_a_vector_figure_stay_text(tmp_path: Path) -> None:
    write_figures(plots.report_drawings(make_report(300)), tmp_path)
    assert "certified radius" in (tmp_path / "radii.svg").read_text(encoding="utf-8")
    assert "left by the attack" in (tmp_path / "accuracy.svg").read_text(encoding="utf-8")


def line(axes: Any, label: str) -> list[tuple[float, float]]:
    (found,) = [line for line in axes.get_lines() if line.get_label() == label]
    return list(zip(found.get_xdata(), found.get_ydata(), strict=True))


def test_the_curves_are_on_the_safe_side_between_the_points() -> None:
    """Certified: at most what holds at the next point. Attacked: at least what held at the point before."""
    report = make_report(2000, points=11)
    axes = plots.report_figure(report).axes[0]
    certified, attacked = line(axes, "certified"), line(axes, "left by the attack")
    for eps, share in report.curve[1:]:
        before = [y for x, y in certified if x < eps * 0.999]
        if eps < axes.get_xlim()[1]:
            assert min(before) <= 100 * share + 1e-6
    for eps in report.eps:
        after = [y for x, y in attacked if x > eps * 1.001]
        assert max(after) >= 100 * report.empirical_robust_accuracy[format(eps, "g")] - 1e-6


def test_the_ladder_has_a_point_per_bound_and_the_lower_bound_as_a_line() -> None:
    result = make_comparison()
    axes = plots.compare_figure(result).axes[0]
    points = next(line for line in axes.get_lines() if len(line.get_xdata()) == 3)
    assert list(points.get_xdata()) == sorted(row.bound for row in result.rows if row.bound is not None)
    assert axes.get_xscale() == "log"
    (floor,) = [line for line in axes.get_lines() if str(line.get_label()).startswith("lower bound")]
    assert list(floor.get_xdata()) == [24.18, 24.18]


def test_a_report_with_nothing_certified_has_figures_too(tmp_path: Path) -> None:
    report = make_report(300)
    nothing = {
        "curve": ((0.0, 0.0), (0.5, 0.0)),
        "certified_accuracy": dict.fromkeys(report.certified_accuracy, 0.0),
        "histogram": Histogram(edges=(0.0, 1.0), counts=(0,)),
        "empirical_robust_accuracy": {},
    }
    assert write_figures(plots.report_drawings(report.model_copy(update=nothing)), tmp_path)


def test_nothing_to_draw_is_said() -> None:
    bare = make_bound().model_copy(update={"contributions": ()})
    empty = make_comparison().model_copy(update={"rows": (make_refusal(),)})
    assert plots.comparison_drawings(empty) == {}
    for draw in (lambda: plots.bound_figure(bare), lambda: plots.compare_figure(empty)):
        with pytest.raises(UsageError, match="nothing to draw"):
            draw()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot make the folder"):
        write_figures(plots.report_drawings(make_report(300)), tmp_path / "file" / "x")
