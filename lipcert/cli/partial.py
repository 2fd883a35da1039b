"""What is written of the work that is done when a run is cut off."""

from __future__ import annotations

from pathlib import Path

from lipcert.errors import LipcertError

PAGE, DOCUMENT = "partial.html", "partial.json"  # other names than a whole report's: nobody must take it for one


def partial_path(path: Path) -> Path:
    """Return where what is done of a file is written when a run is cut off."""
    return path.with_name(f"{path.stem}.partial{path.suffix}")


def write_partial(folder: Path) -> Path | None:
    """Write a report on the records in a folder, beside them; it says which samples are missing.

    Returns:
        The page; None where no report can be made of the records, which stay as they are.
    """
    from lipcert.report.html import regression_page, report_page
    from lipcert.report.json import write_document, write_text
    from lipcert.robustness.records.lines import FILE
    from lipcert.robustness.records.merge import merge, missing, ranges, read_folder
    from lipcert.robustness.regression import make_changes_report
    from lipcert.robustness.summary import make_report

    try:
        log = merge(read_folder(folder))
        left = missing(log)
        note = f"the run was cut off: {len(left)} of {log.heading.total} samples are missing: {ranges(left)}"
        if log.heading.outputs is None:
            report = make_report(log, None, folder / FILE, [note])
            write_document(folder / DOCUMENT, report)
            write_text(folder / PAGE, report_page(report))
        else:
            changes = make_changes_report(log, None, folder, [note])
            write_document(folder / DOCUMENT, changes)
            write_text(folder / PAGE, regression_page(changes))
    except LipcertError:
        return None
    return folder / PAGE
