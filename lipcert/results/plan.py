"""The stages of a run before it is run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, FiniteFloat

from lipcert.results.base import Count, Document, LevelName, NormName, Seconds
from lipcert.results.bound import ModelInfo


class PlannedStage(Document):
    """A stage that a run would have, or one that it would leave out.

    Attributes:
        kind: what it does: one bound for all samples, an attack, bounds around each sample, a search for radii.
        reason: why it is in or out. level: of its verdicts, null where it is out.
        cost: per sample, in words. multiplications: per sample at most, null where they depend on the sample.
        batch_size: of its first batch; it then follows the memory that was measured.
    """

    name: str
    kind: Literal["global", "attack", "local", "radius"]
    included: bool
    reason: str
    level: LevelName | None
    cost: str
    multiplications: FiniteFloat | None
    batch_size: Count | None


class PlanResult(Document):
    """What `lipcert certify` would do (schema ``lipcert.plan/v1``); nothing was run.

    Attributes:
        bound_method, bound_reason: the method for the global bound, and why.
        batch_size: samples that go through all stages together, at first.
        stages: in the order in which they are run, those left out among them.
    """

    schema_: Literal["lipcert.plan/v1"] = Field(default="lipcert.plan/v1", alias="schema")
    model: ModelInfo
    samples: Count
    norm: NormName
    eps: tuple[FiniteFloat, ...]
    level: LevelName
    method: str
    device: str
    bound_method: str
    bound_reason: str
    batch_size: Count
    time_limit: Seconds | None
    budget_per_sample: Seconds | None
    stages: tuple[PlannedStage, ...]
