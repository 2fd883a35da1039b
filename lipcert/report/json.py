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
    Heading,
    InspectResult,
    PlanResult,
    RecordLine,
    RegressionReport,
    Report,
    RunsResult,
)

Kind = type[Document] | type[RecordLine]

PUBLISHED: tuple[Kind, ...] = (
    BoundResult,
    CompareResult,
    Report,
    CheckResult,
    InspectResult,
    DoctorResult,
    PlanResult,
    RegressionReport,
    RunsResult,
    RecordLine,
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


def schema_id(kind: Kind) -> str:
    """Return the id that documents of this kind carry, such as ``lipcert.bound/v1``."""
    carrier = Heading if issubclass(kind, RecordLine) else kind
    return str(carrier.model_fields["schema_"].default)


def schema_name(kind: Kind) -> str:
    """Return the file name of the published schema, such as ``bound.v1.json``."""
    return schema_id(kind).removeprefix("lipcert.").replace("/", ".") + ".json"


def make_schema(kind: Kind) -> dict[str, Any]:
    """Return the JSON schema of a kind of document, as it is written by this version."""
    schema = kind.model_json_schema(by_alias=True, mode="serialization")
    identity = schema_id(kind).replace("/", ":").replace("lipcert.", "urn:lipcert:schema:")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": identity, **schema}


def published_schema(kind: Kind) -> dict[str, Any]:
    """Return the schema as published with the package."""
    text = files("lipcert.report").joinpath("schemas", schema_name(kind)).read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def write_schemas(folder: Path) -> None:
    """Write the schemas of all kinds of documents into a folder (of this package: `python -m lipcert.report`)."""
    for kind in PUBLISHED:
        write_text(folder / schema_name(kind), json.dumps(make_schema(kind), indent=2, sort_keys=True) + "\n")
