"""A report on the samples that are done when a run is cut off."""

from __future__ import annotations

from pathlib import Path

from lipcert.errors import LipcertError

PAGE, DOCUMENT = "partial.html", "partial.json"  # other names than a whole report's: nobody must take it for one


def write_partial(folder: Path) -> Path | None:
    """Write a report on the records in a folder, beside them; it says which samples are missing.

    Returns:
        The page; None where no report can be made of the records, which stay as they are.
    """
    from lipcert.report.html import report_page
    from lipcert.report.json import write_document, write_text
    from lipcert.robustness.records.lines import FILE
    from lipcert.robustness.records.merge import merge, missing, ranges, read_folder
    from lipcert.robustness.summary import make_report

    try:
        log = merge(read_folder(folder))
        left = missing(log)
        note = f"the run was cut off: {len(left)} of {log.heading.total} samples are missing: {ranges(left)}"
        report = make_report(log, None, folder / FILE, [note])
        write_document(folder / DOCUMENT, report)
        write_text(folder / PAGE, report_page(report))
    except LipcertError:
        return None
    return folder / PAGE
