"""One self-contained page: no scripts, no other files, light and dark, on screens from 360 pixels and on paper."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from lipcert.report import changes, comparison_figures, facts, figures, numbers, run_figures, wording
from lipcert.results import CompareResult, RegressionReport, Report, RunsResult


def report_page(report: Report, samples: str | None = None) -> str:
    """Return a robustness report as a page.

    Args:
        report: what it says.
        samples: name of a file beside the page with one row per sample, which the page links to.
    """
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            accuracy=figures.accuracy_figure(report),
            radii=figures.histogram_figure(report.histogram, report.eps),
            layers=figures.layer_bars(report.bound.contributions),
            samples=samples,
        )
    )


def regression_page(report: RegressionReport, samples: str | None = None) -> str:
    """Return a report on outputs that are numbers as a page; arguments as of `report_page`."""
    page = _environment().get_template("regression.html.j2")
    return page.render(report=report, layers=figures.layer_bars(report.bound.contributions), samples=samples)


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


def runs_page(result: RunsResult) -> str:
    """Return several runs side by side as a page."""
    page = _environment().get_template("runs.html.j2")
    return page.render(result=result, curves=run_figures.curves_figure(result))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("lipcert.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(changes=changes, facts=facts, numbers=numbers, wording=wording)
    return environment
