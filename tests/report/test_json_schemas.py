"""Published schemas are those of this version, and every document obeys its own."""

from __future__ import annotations

import json
import math
from pathlib import Path

import jsonschema
import pytest
from pydantic import ValidationError
from sample_documents import (
    make_bound,
    make_check,
    make_comparison,
    make_diagnosis,
    make_exhibits,
    make_inspection,
    make_model,
    make_plan,
    make_refusal,
    make_refused_inspection,
    make_regression,
    make_report,
    make_runs,
)

from lipcert.errors import UsageError
from lipcert.report.json import PUBLISHED, make_schema, published_schema, schema_name, write_document
from lipcert.results import CheckResult, Document, RecordLine

DOCUMENTS = [
    make_bound(),
    make_refusal(),
    make_comparison(),
    make_runs(),
    make_report(200),
    make_report(200).model_copy(update={"exhibits": (*make_exhibits(), *make_exhibits(pictures=False))}),
    make_check(),
    make_check(valid=False),
    make_inspection(),
    make_refused_inspection(),
    make_diagnosis(),
    make_plan(),
    make_regression(),
]


@pytest.mark.parametrize("kind", PUBLISHED, ids=lambda kind: kind.__name__)
def test_the_published_schema_is_up_to_date(kind: type[Document]) -> None:
    assert published_schema(kind) == make_schema(kind), "run `python -m lipcert.report`"
    jsonschema.Draft202012Validator.check_schema(published_schema(kind))


def test_every_kind_of_document_is_published_once() -> None:
    kinds = {type(document) for document in DOCUMENTS}
    assert kinds | {RecordLine} == set(PUBLISHED)  # lines: tests/report/test_written_documents.py
    assert len({schema_name(kind) for kind in PUBLISHED}) == len(PUBLISHED)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: type(document).__name__)
def test_documents_obey_their_schema(document: Document, tmp_path: Path) -> None:
    path = tmp_path / "document.json"
    write_document(path, document)
    written = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.validate(written, published_schema(type(document)), cls=jsonschema.Draft202012Validator)
    assert type(document).model_validate(written) == document


def test_an_unknown_field_breaks_the_schema() -> None:
    written = json.loads(make_check().model_dump_json()) | {"surprise": 1}
    with pytest.raises(jsonschema.ValidationError, match="surprise"):
        jsonschema.validate(written, published_schema(CheckResult))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_none_are_refused(value: float) -> None:
    with pytest.raises(ValidationError):
        CheckResult(valid=True, level="verified", bound=value, norm="l2", rule="r", reason="", seconds=0.0)


def test_a_file_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write"):
        write_document(tmp_path / "missing" / "x.json", make_model())
