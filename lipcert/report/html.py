"""One self-contained page: no scripts, no other files, light and dark, on screens from 360 pixels and on paper."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from lipcert.report import comparison_figures, figures, numbers, wording
from lipcert.results import CompareResult, Report


def report_page(report: Report) -> str:
    """Return a robustness report as a page."""
    layers = report.bound.contributions
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            accuracy=figures.accuracy_figure(report),
            radii=figures.histogram_figure(report.histogram, report.eps),
            layers=figures.layer_bars(layers),
            steps_make_bound=bool(layers) and layers[-1].cumulative == report.bound.bound,
        )
    )


def compare_page(result: CompareResult) -> str:
    """Return a comparison of methods as a page."""
    rows = sorted((row for row in result.rows if row.bound is not None), key=lambda row: row.bound or 0.0)
    ladder = comparison_figures.ladder([row.bound or 0.0 for row in rows], result.lower_bound)
    return (
        _environment()
        .get_template("compare.html.j2")
        .render(
            result=result,
            rungs=list(zip(rows, ladder.places, strict=True)),
            lower_place=ladder.lower,
            ticks=ladder.ticks,
            trade=comparison_figures.trade_figure(rows, result.lower_bound),
            measured=any(row.memory is not None for row in rows),
            failed=[row for row in result.rows if row.bound is None],
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("lipcert.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(numbers=numbers, wording=wording)
    return environment
