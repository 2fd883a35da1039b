"""Tables of the documentation that programs write: each stands between two marks of its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


def between(page: str, name: str) -> str:
    """Return what stands between the marks of a table."""
    return page.partition(f"<!-- {name} -->\n")[2].partition(f"\n<!-- /{name} -->")[0]


def filled(page: str, tables: Mapping[str, str]) -> str:
    """Return a page with the tables between their marks.

    Raises:
        ValueError: the page does not have the marks of a table.
    """
    for name, table in tables.items():
        first, last = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
        head, found, rest = page.partition(first)
        if not found or last not in rest:
            raise ValueError(f"the page needs the marks of the table '{name}', and a line between them")
        page = f"{head}{first}{table}{last}{rest.partition(last)[2]}"
    return page


def fill(path: Path, tables: Mapping[str, str]) -> None:
    """Write the tables into a page."""
    path.write_text(filled(path.read_text(encoding="utf-8"), tables), encoding="utf-8")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
