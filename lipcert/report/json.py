"""Documents as JSON files, and the published schemas they obey."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from lipcert.files import write_whole
from lipcert.results import (
    BoundResult,
    CheckResult,
    CompareResult,
    DoctorResult,
    Document,
    InspectResult,
    PlanResult,
    RegressionReport,
    Report,
    RunsResult,
)

PUBLISHED: tuple[type[Document], ...] = (
    BoundResult,
    CompareResult,
    Report,
    CheckResult,
    InspectResult,
    DoctorResult,
    PlanResult,
    RegressionReport,
    RunsResult,
)


def write_text(path: Path, text: str) -> None:
    """Write a text file; it appears whole or not at all.

    Raises:
        UsageError: the file cannot be written.
    """
    with write_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_document(path: Path, document: Document) -> None:
    """Write a document as JSON; raises UsageError as `write_text` does."""
    write_text(path, document.model_dump_json(indent=2) + "\n")


def schema_id(kind: type[Document]) -> str:
    """Return the id that documents of this kind carry, such as ``lipcert.bound/v1``."""
    return str(kind.model_fields["schema_"].default)


def schema_name(kind: type[Document]) -> str:
    """Return the file name of the published schema, such as ``bound.v1.json``."""
    return schema_id(kind).removeprefix("lipcert.").replace("/", ".") + ".json"


def make_schema(kind: type[Document]) -> dict[str, Any]:
    """Return the JSON schema of a kind of document, as it is written by this version."""
    schema = kind.model_json_schema(by_alias=True, mode="serialization")
    identity = schema_id(kind).replace("/", ":").replace("lipcert.", "urn:lipcert:schema:")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": identity, **schema}


def published_schema(kind: type[Document]) -> dict[str, Any]:
    """Return the schema as published with the package."""
    text = files("lipcert.report").joinpath("schemas", schema_name(kind)).read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def write_schemas(folder: Path) -> None:
    """Write the schemas of all kinds of documents into a folder (of this package: `python -m lipcert.report`)."""
    for kind in PUBLISHED:
        write_text(folder / schema_name(kind), json.dumps(make_schema(kind), indent=2, sort_keys=True) + "\n")
