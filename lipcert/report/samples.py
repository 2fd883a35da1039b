"""The per-sample records as a table, for spreadsheets (CSV) and for data frames (Parquet)."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lipcert.errors import UsageError
from lipcert.files import write_whole
from lipcert.report import numbers

Row = dict[str, Any]
NO_PARQUET = "Parquet needs pyarrow, which is not installed: pip install 'lipcert[parquet]', or use the CSV file"


def read_rows(records: Path) -> Iterator[Row]:
    """Read records line by line; what they hold per eps becomes columns such as ``status@0.5``.

    Raises:
        UsageError: the file cannot be read or is none of records.
    """
    try:
        with records.open(encoding="utf-8") as file:
            keys = [numbers.eps_key(eps) for eps in json.loads(file.readline())["eps"]]
            for line in map(json.loads, file):
                if "part" not in line:  # what a process says of its own work
                    yield _flat(line, keys)
    except OSError as error:
        raise UsageError(f"cannot read the records '{records}': {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"'{records}' is not a file of records: {error}") from None


def write_csv(records: Path, target: Path) -> None:
    """Write records as CSV, sample by sample; memory does not grow with their number.

    Raises:
        UsageError: the records cannot be read, or the file cannot be written.
    """
    with write_whole(target) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        rows = read_rows(records)
        first = next(rows, None)
        if first is None:
            return
        writer = csv.DictWriter(file, fieldnames=list(first), lineterminator="\n")
        writer.writeheader()
        writer.writerow(first)
        writer.writerows(rows)


def require_parquet() -> None:
    """Refuse before the work begins where no Parquet file can be written; raises UsageError."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise UsageError(NO_PARQUET) from None


def write_parquet(records: Path, target: Path) -> None:
    """Write records as Parquet.

    Raises:
        UsageError: pyarrow is not installed, the records cannot be read, or the file cannot be written.
    """
    require_parquet()
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist(list(read_rows(records)))
    with write_whole(target) as temporary:
        pyarrow.parquet.write_table(table, temporary)


def _flat(line: Mapping[str, Any], keys: list[str]) -> Row:
    """Return one line of records as cells."""
    row: Row = {}
    for name, value in line.items():
        if isinstance(value, list) and len(value) == len(keys):
            row |= {f"{name}@{key}": cell for key, cell in zip(keys, value, strict=True)}
        else:
            row[name] = json.dumps(value) if isinstance(value, (list, dict)) else value
    return row
