"""What a model is made of, and what an installation can do."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, FiniteFloat

from lipcert.results.base import Count, Document
from lipcert.results.bound import ModelInfo


class NodeInfo(Document):
    """One node of a network as read.

    Attributes:
        slopes: interval that holds every slope of an activation, where it acts entrywise.
        norm_l2, norm_linf: verified upper bounds of the norm of an affine operator.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: Count
    slopes: tuple[FiniteFloat, FiniteFloat] | None
    norm_l2: FiniteFloat | None
    norm_linf: FiniteFloat | None


class UnsupportedPart(Document):
    """A part of a model that no sound rule covers."""

    where: str
    what: str
    why: str


class InspectResult(Document):
    """What a model is made of (schema ``lipcert.inspect/v1``).

    Attributes:
        model: null where the model has unsupported parts; then `unsupported` lists all of them.
    """

    schema_: Literal["lipcert.inspect/v1"] = Field(default="lipcert.inspect/v1", alias="schema")
    path: str
    model: ModelInfo | None
    nodes: tuple[NodeInfo, ...]
    unsupported: tuple[UnsupportedPart, ...]
    notes: tuple[str, ...]


class Finding(Document):
    """One thing that `lipcert doctor` looked at; `remedy` says what to do where something is missing."""

    topic: Literal["arithmetic", "checker", "method", "solver", "device", "software"]
    name: str
    status: Literal["ok", "absent", "broken"]
    detail: str
    remedy: str | None = None


class DoctorResult(Document):
    """What this installation can do (schema ``lipcert.doctor/v1``); `healthy` where nothing is broken."""

    schema_: Literal["lipcert.doctor/v1"] = Field(default="lipcert.doctor/v1", alias="schema")
    healthy: bool
    findings: tuple[Finding, ...]
