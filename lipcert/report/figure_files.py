"""Figures as files for papers: PNG and SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lipcert.errors import UsageError
from lipcert.files import write_whole
from lipcert.report.plots import STYLE, Drawings, drawn

FORMATS = ("png", "svg")
DOTS = 200  # per inch


def write_figures(named: Drawings, folder: Path) -> list[Path]:
    """Write each figure (`plots.report_drawings`, `plots.comparison_drawings`) as PNG and SVG under its name.

    Args:
        named: the figures.
        folder: where they go; it is made where it is missing.

    Returns:
        The files, which are the same in every run.

    Raises:
        UsageError: a file cannot be written.
    """
    import matplotlib

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder '{folder}': {error.strerror}") from None
    written = []
    for name, draw in named.items():
        figure = drawn({name: draw})
        for kind in FORMATS:
            path = folder / f"{name}.{kind}"
            metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {}
            with write_whole(path) as temporary, matplotlib.rc_context(STYLE):
                figure.savefig(temporary, format=kind, dpi=DOTS, metadata=metadata)
            written.append(path)
    return written
