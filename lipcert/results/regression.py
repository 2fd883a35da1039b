"""Changes of outputs that are numbers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, FiniteFloat

from lipcert.results.base import Count, Document, LevelName, NormName, Seconds
from lipcert.results.bound import BoundResult, ModelInfo
from lipcert.results.report import Provenance, StageResult


class OutputChange(Document):
    """How far one output of a regression network can move, over all samples.

    Attributes:
        output: position, from 0.
        largest, mean: of the samples' bounds of the change, in the units of the output.
        lower, upper: all values that the output can take around any of the samples lie between them.
    """

    output: Count
    largest: FiniteFloat
    mean: FiniteFloat
    lower: FiniteFloat
    upper: FiniteFloat


class RegressionReport(Document):
    """How far the outputs of a regression network can move (schema ``lipcert.regression/v1``).

    Attributes:
        eps: radii, in units of `per_input`: the radius of each input for eps 1, raw input units.
        changes: by eps, as ``format(eps, 'g')``. scale: outputs count as this factor times those of the network.
        methods: what the intervals come from. bound: the global bound of the network with its outputs in both signs.
        intervals: path of the intervals of all samples, or null. records: of the per-sample file, or null.
        untried_count: how many samples the end of a time limit left to the global bound, per eps; empty where none.
    """

    schema_: Literal["lipcert.regression/v1"] = Field(default="lipcert.regression/v1", alias="schema")
    model: ModelInfo
    samples: Count
    norm: NormName
    eps: tuple[FiniteFloat, ...]
    level: LevelName
    methods: tuple[str, ...]
    changes: dict[str, tuple[OutputChange, ...]]
    bound: BoundResult
    per_input: tuple[FiniteFloat, ...]
    scale: tuple[FiniteFloat, ...]
    seconds: Seconds
    intervals: str | None
    per_method: tuple[StageResult, ...] = ()
    untried_count: dict[str, Count] = Field(default_factory=dict)
    records: str | None = None
    provenance: Provenance | None = None
    notes: tuple[str, ...] = ()
