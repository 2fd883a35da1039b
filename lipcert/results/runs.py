"""Several runs side by side."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, FiniteFloat

from lipcert.results.base import Count, Document, Fraction, LevelName, NormName, Seconds
from lipcert.results.bound import ModelInfo
from lipcert.results.report import StageResult


class RunRow(Document):
    """One run among several; its maps are those of its report, per eps.

    Attributes:
        name: what the run was called by: its folder or file.
        gained, lost: samples that this run certifies and the first one does not, and the other way round; null where
            the runs have no records of the same samples.
    """

    name: str
    model: ModelInfo
    method: str
    level: LevelName
    samples: Count
    clean_count: Count
    certified_count: dict[str, Count]
    attacked_count: dict[str, Count]
    unknown_count: dict[str, Count]
    mean_certified_radius: FiniteFloat
    bound: FiniteFloat | None
    lower_bound: FiniteFloat | None
    curve: tuple[tuple[FiniteFloat, Fraction], ...]
    per_method: tuple[StageResult, ...]
    seconds: Seconds
    samples_per_second: FiniteFloat
    device: str
    gained: dict[str, Count] | None = None
    lost: dict[str, Count] | None = None


class RunsResult(Document):
    """Several runs side by side (schema ``lipcert.runs/v1``), in the order given.

    Attributes:
        eps: all radii that any run was asked for; a run says nothing of one that is not in its maps.
        same_samples: whether all runs are about the same samples; where not, their fractions cannot be compared.
        notes: what else differs.
    """

    schema_: Literal["lipcert.runs/v1"] = Field(default="lipcert.runs/v1", alias="schema")
    norm: NormName
    eps: tuple[FiniteFloat, ...]
    same_samples: bool
    rows: tuple[RunRow, ...]
    notes: tuple[str, ...] = ()
