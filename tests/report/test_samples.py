"""The per-sample tables say what the records say."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from lipcert.errors import UsageError
from lipcert.report.samples import read_rows, write_csv, write_parquet

LINES = [
    {"index": 0, "label": 3, "predicted": 3, "radius": 0.1 + 0.2, "status": ["certified", "unknown"], "key": "aa"},
    {"index": 1, "label": 4, "predicted": -1, "radius": 0.0, "status": ["unknown", "unknown"], "key": 'bb,"c"'},
]


@pytest.fixture
def records(tmp_path: Path) -> Path:
    path = tmp_path / "records.jsonl"
    content = [{"schema": "lipcert.records/v2", "eps": [0.25, 8 / 255]}, *LINES, {"part": "a", "samples": 2}]
    path.write_text("".join(json.dumps(line) + "\n" for line in content), encoding="utf-8")
    return path


def test_csv_holds_every_number_exactly(records: Path) -> None:
    target = records.with_name("samples.csv")
    write_csv(records, target)
    with target.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [list(row) for row in rows] == [
        ["index", "label", "predicted", "radius", "status@0.25", "status@0.0313725", "key"]
    ] * 2
    assert float(rows[0]["radius"]) == 0.1 + 0.2
    assert [rows[0]["status@0.25"], rows[0]["status@0.0313725"]] == ["certified", "unknown"]
    assert rows[1]["key"] == 'bb,"c"'


def test_parquet_holds_the_same_with_types(records: Path) -> None:
    target = records.with_name("samples.parquet")
    write_parquet(records, target)
    table = pyarrow.parquet.read_table(target)
    assert table.to_pylist() == list(read_rows(records))
    assert str(table.schema.field("radius").type) == "double"
    assert str(table.schema.field("index").type) == "int64"


def test_parquet_without_pyarrow_is_one_clear_line(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UsageError, match=r"pip install 'lipcert\[parquet\]'") as caught:
        write_parquet(records, records.with_name("x.parquet"))
    assert len(str(caught.value).splitlines()) == 1
    assert not records.with_name("x.parquet").exists()


def test_no_samples_give_an_empty_table(records: Path) -> None:
    records.write_text('{"eps": [0.1]}\n', encoding="utf-8")
    write_csv(records, records.with_name("x.csv"))
    assert records.with_name("x.csv").read_text() == ""


@pytest.mark.parametrize("content", ["", "{}\n", "[1]\n", "no json\n", '{"eps": [1]}\n[]\n', '{"eps": [1]}\nx\n'])
def test_other_files_are_refused(records: Path, content: str) -> None:
    records.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match="not a file of records"):
        write_csv(records, records.with_name("x.csv"))


def test_missing_records_are_refused(tmp_path: Path) -> None:
    found: list[Any] = []
    with pytest.raises(UsageError, match="cannot read the records"):
        found.extend(read_rows(tmp_path / "none.jsonl"))
