"""How results look in Python: as text, as a table in a notebook, as a figure, as a data frame."""

from __future__ import annotations

import io
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lipcert.errors import UsageError, suggestion
from lipcert.report import numbers, overview
from lipcert.report.overview import Overview
from lipcert.report.samples import read_rows
from lipcert.results import BoundResult, CheckResult, CompareResult, Report, Result

if TYPE_CHECKING:
    from collections.abc import Sequence

DOTS = 110  # per inch of a figure in a notebook
Row = dict[str, Any]


def text(result: Result) -> str:
    """Return a result as a few lines of text."""
    shown = _overview(result)
    table = [shown.head, *shown.rows] if shown.head else list(shown.rows)
    words = shown.words if shown.head else frozenset(range(2))
    lines = [shown.title, *_aligned(table, words), *shown.lines, *_below(result)]
    return "\n".join(line.rstrip() for line in lines)


def brief(result: Result) -> str:
    """Return a result in one line."""
    match result:
        case Report():
            shares = ", ".join(
                f"{numbers.percent_down(count, result.samples)} at {key}"
                for key, count in result.certified_count.items()
            )
            clean = numbers.percent_down(result.clean_count, result.samples)
            what = f"{numbers.count(result.samples)} samples, clean {clean}, certified ({result.norm}) {shares}"
        case CompareResult():
            known = [row.bound for row in result.rows if row.bound is not None]
            best = numbers.up(min(known)) if known else numbers.MISSING
            what = f"{len(result.rows)} methods, best {result.norm} bound ≤ {best}"
        case BoundResult():
            what = f"{result.norm} ≤ {numbers.up(result.bound)}, {result.level}, by {result.method}"
        case _:
            what = _overview(result).title
    return f"<{type(result).__name__}: {what}>"


def html(result: Result) -> str:
    """Return a result as an HTML table with its title above and its lines below."""
    shown = _overview(result)
    words = shown.words if shown.head else frozenset(range(2))
    head = "".join(
        f'<th scope="col"{_style(place in words)}>{escape(name)}</th>' for place, name in enumerate(shown.head)
    )
    rows = "".join(f"<tr>{_cells(row, words)}</tr>" for row in shown.rows)
    table = f"<table>{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{rows}</tbody></table>" if rows else ""
    below = "".join(f"<div>{escape(line)}</div>" for line in (*shown.lines, *_below(result)))
    return f"<div><strong>{escape(shown.title)}</strong>{table}{below}</div>"


def plot(result: Result) -> Any:
    """Return a matplotlib figure of a result; it shows itself in a notebook."""
    from lipcert.report import plots

    drawings: plots.Drawings = {}
    match result:
        case Report():
            drawings = plots.report_drawings(result)
        case CompareResult():
            drawings = plots.comparison_drawings(result)
        case BoundResult():
            drawings = plots.bound_drawings(result) or plots.comparison_drawings(_alone(result))
    if not drawings:
        raise UsageError(f"there is nothing to draw of {brief(result)}")
    figure: Any = plots.drawn(drawings)
    figure._repr_png_ = partial(_png, figure)  # it is made without pyplot, which would show it
    return figure


def _alone(result: BoundResult) -> CompareResult:
    """Return a comparison of one bound: how it stands to its lower bound is what can be drawn of it."""
    return CompareResult(
        model=result.model, norm=result.norm, lower_bound=result.lower_bound, rows=(result,), seconds=result.seconds
    )


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS)
    return buffer.getvalue()


def frame(result: Result, rows: str = "result") -> Any:
    """Return a result as a pandas data frame; `rows` as in `records`.

    Raises:
        UsageError: pandas is not installed, or there are no such rows.
    """
    try:
        import pandas
    except ImportError:
        raise UsageError("to_pandas() needs pandas, which is not installed: pip install 'lipcert[pandas]'") from None
    return pandas.DataFrame(records(result, rows))


def records(result: Result, rows: str = "result") -> list[Row]:
    """Return a result as plain rows: of a report one per eps, of a comparison one per method, else a single one.

    Args:
        result: what is wanted as rows.
        rows: ``result``, or ``samples`` for the per-sample records of a report.

    Raises:
        UsageError: there are no such rows.
    """
    if rows == "samples" and isinstance(result, Report) and result.records is not None:
        return list(read_rows(Path(result.records)))
    if rows == "samples":
        raise UsageError("there are no per-sample records: certify(..., folder=DIR) writes them")
    if rows != "result":
        raise UsageError(f"there are no rows '{rows}': {suggestion(rows, ('result', 'samples'))}")
    match result:
        case Report():
            return [_eps_record(result, numbers.eps_key(eps), eps) for eps in result.eps]
        case CompareResult():
            return [_bound_record(row) for row in result.rows]
        case BoundResult():
            return [_bound_record(result)]
    return [result.model_dump(include={"valid", "level", "bound", "norm", "quantity", "rule", "reason", "seconds"})]


def _eps_record(report: Report, key: str, eps: float) -> Row:
    return {
        "eps": eps,
        "norm": report.norm,
        "samples": report.samples,
        "clean_accuracy": report.clean_accuracy,
        "certified_accuracy": report.certified_accuracy[key],
        "certified_count": report.certified_count[key],
        "empirical_robust_accuracy": report.empirical_robust_accuracy.get(key),
        "attacked_count": report.attacked_count.get(key),
        "unknown_count": report.unknown_count.get(key),
        "level": report.level,
    }


def _bound_record(result: BoundResult) -> Row:
    names = ("method", "norm", "bound", "lower_bound", "ratio", "seconds", "memory", "level", "error")
    return {name: getattr(result, name) for name in names}


def _overview(result: Result) -> Overview:
    match result:
        case Report():
            return overview.report_overview(result)
        case CompareResult():
            return overview.compare_overview(result)
        case BoundResult():
            return overview.bound_overview(result)
        case CheckResult():
            return overview.check_overview(result)
    raise TypeError(f"no overview of a {type(result).__name__} is known")


def _below(result: Result) -> list[str]:
    """Return notes and verdicts."""
    notes = result.notes if isinstance(result, (Report, BoundResult)) else ()
    required = result.requirements if isinstance(result, (Report, CheckResult)) else ()
    return [*(f"note: {note}" for note in notes), *map(overview.verdict, required)]


def _cells(row: Sequence[str], words: frozenset[int]) -> str:
    """Return a row; its first entry names it."""
    cells = [f"{_style(place in words)}>{escape(cell)}" for place, cell in enumerate(row)]
    return f'<th scope="row"{cells[0]}</th>' + "".join(f"<td{cell}</td>" for cell in cells[1:])


def _style(is_word: bool) -> str:
    return f' style="text-align:{"left" if is_word else "right"};padding:0.2em 0.8em"'


def _aligned(rows: Sequence[Sequence[str]], words: frozenset[int]) -> list[str]:
    """Return rows as lines with columns of equal width, two blanks apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place in words else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
