"""Every document that a command writes obeys its published schema; every other file can be read by its readers."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pyarrow.parquet
import pytest
from junitparser import JUnitXml

from lipcert.cli import app
from lipcert.report.json import PUBLISHED, published_schema, schema_id
from lipcert.results import RecordLine

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "digits"
MODEL, DATA = str(EXAMPLE / "digits.onnx"), str(EXAMPLE / "test.npz")


def obeys(document: Any) -> str:
    """Check a document against the schema that it names; return the name."""
    (kind,) = [kind for kind in PUBLISHED if schema_id(kind) == document["schema"]]
    jsonschema.validate(document, published_schema(kind), cls=jsonschema.Draft202012Validator)
    return schema_id(kind)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Any:
        capsys.readouterr()
        assert app.run([*arguments, "--json", "--quiet"]) in (0, 1)
        return json.loads(capsys.readouterr().out)

    return run


def test_what_certify_writes(call: Callable[..., Any], tmp_path: Path) -> None:
    found = call(
        "certify", MODEL, "--data", DATA, "--limit", "40", "--eps", "0.25", "--eps", "0.5", "--method", "product",
        "--report", "r", "--figures", "--parquet",
        "--require", "certified_accuracy@0.25 >= 0.5", "--require", "clean_accuracy >= 1.5",
    )  # fmt: skip
    folder = tmp_path / "r"
    assert obeys(found) == "lipcert.report/v1"
    assert obeys(json.loads((folder / "report.json").read_text(encoding="utf-8"))) == "lipcert.report/v1"
    with (folder / "samples.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == found["samples"] == 40
    lines = [json.loads(line) for line in (folder / "records.jsonl").read_text(encoding="utf-8").splitlines()]
    judge = jsonschema.Draft202012Validator(published_schema(RecordLine))
    assert len(lines) > 41 and all(judge.is_valid(line) for line in lines)
    assert not judge.is_valid({**lines[1], "status": ["proved"] * 2})
    certified = [row for row in rows if row["status@0.25"] == "certified"]
    assert len(certified) == found["certified_count"]["0.25"]
    assert all(float(row["radius"]) >= 0.25 for row in certified)
    table = pyarrow.parquet.read_table(folder / "samples.parquet").to_pylist()
    assert [{name: str(value) for name, value in row.items()} for row in table] == rows
    suite = next(iter(JUnitXml.fromfile(str(folder / "junit.xml"))))
    assert (suite.tests, suite.failures) == (2, 1)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert 'href="samples.csv"' in page
    assert page.count("<img ") >= 8, "digits are pictures"
    for name in ("accuracy", "radii", "layers"):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 1000
        ElementTree.parse(folder / "figures" / f"{name}.svg")
    assert (folder / "report.md").read_text(encoding="utf-8").startswith("## Robustness of `digits.onnx`")


def test_figures_and_parquet_need_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--figures", "--parquet"):
        assert app.run(["certify", MODEL, "--data", DATA, "--eps", "0.5", option]) == 2
        assert "give --report DIR too" in capsys.readouterr().err


def test_what_the_other_commands_write(call: Callable[..., Any], tmp_path: Path) -> None:
    bound = call("bound", MODEL, "--method", "product", "--out", "b.lipcert")
    assert obeys(bound) == "lipcert.bound/v1"
    assert obeys(call("check", "b.lipcert", MODEL)) == "lipcert.check/v1"
    assert obeys(call("inspect", MODEL)) == "lipcert.inspect/v1"
    compared = call("compare", MODEL, "--methods", "product,absolute", "--html", "c.html", "--figures", "f")
    assert obeys(compared) == "lipcert.compare/v1"
    assert all(obeys(row) == "lipcert.bound/v1" for row in compared["rows"])
    assert {path.name for path in (tmp_path / "f").iterdir()} == {"ladder.png", "ladder.svg", "trade.png", "trade.svg"}


def test_what_doctor_writes(call: Callable[..., Any]) -> None:
    assert obeys(call("doctor")) == "lipcert.doctor/v1"
