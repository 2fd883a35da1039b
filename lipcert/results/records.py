"""The lines of the per-sample file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, RootModel

from lipcert.results.base import Count, Document, LevelName, NormName, Seconds, StatusName
from lipcert.results.bound import BoundResult, ModelInfo
from lipcert.results.report import Provenance


class Heading(Document):
    """The first line of records: all of a report that no verdict changes (schema ``lipcert.records/v2``).

    The lines behind it are each a `SampleLine` or a `Part`.

    Attributes:
        digest: of the network and of the settings that a verdict depends on: batch size, device, shard and time limit
            are not among them.
        total: samples of the data, before sharding.
        level: of a sample that the global bound certifies.
        attacks: whether attacks are run.
        stages: names, in the order of `Verdicts.stage`.
        notes: on the data, the network and the bound.
        outputs: how many outputs the samples' lines bound, where these are numbers; null for classes.
    """

    schema_: Literal["lipcert.records/v2"] = Field(default="lipcert.records/v2", alias="schema")
    digest: str
    total: Count
    eps: tuple[FiniteFloat, ...]
    stages: tuple[str, ...]
    model: ModelInfo
    norm: NormName
    method: str
    level: LevelName
    attacks: bool
    bound: BoundResult
    margins: BoundResult | None
    provenance: Provenance
    notes: tuple[str, ...]
    outputs: Count | None = None

    @property
    def samples_sha256(self) -> str | None:
        """Digest of all samples of the data."""
        return self.provenance.samples_sha256

    @property
    def keys(self) -> tuple[str, ...]:
        """The radii as keys of the report's maps."""
        return tuple(format(e, "g") for e in self.eps)


class SampleLine(Document):
    """The verdicts on one sample; lists have one entry per eps of the heading.

    Attributes:
        index: position in the data. predicted: class, or -1 where the outputs are not numbers.
        radius: certified, in raw input units. stage: that decided, empty where none did. level: of the best proof.
        pending: stages that had no time to look at it, joined by commas; empty for a sample that is done.
        key: digest of the sample, the network and the settings, in hexadecimal.
        lower, upper, change: where outputs are numbers, one row per eps: ends of each output on the ball, and an upper
            bound of its change; null for classes. Such a sample is certified once all stages have bounded it.
    """

    index: Count
    label: int
    predicted: int
    radius: Annotated[FiniteFloat, Field(ge=0.0)]
    status: tuple[StatusName, ...]
    stage: tuple[str, ...]
    level: tuple[LevelName, ...]
    pending: str = ""
    key: Annotated[str, Field(pattern="^[0-9a-f]{16,64}$")]
    lower: tuple[tuple[FiniteFloat, ...], ...] | None = None
    upper: tuple[tuple[FiniteFloat, ...], ...] | None = None
    change: tuple[tuple[FiniteFloat, ...], ...] | None = None


class Part(Document):
    """What one process did so far; a later line of the same part takes the place of an earlier one.

    Attributes:
        part: a name that no other process has. started: UTC time, ISO 8601.
        device: where attacks and local methods ran. shard: of the process, where it had one.
        samples: that it did. elapsed: seconds since it started. seconds: of each stage.
        remarks: of the stages on their work.
        check: CRC-32 of the lines of samples between this line and the last one of its kind.
    """

    part: str
    started: str
    device: str
    shard: str | None = None
    samples: Count = 0
    elapsed: Seconds = 0.0
    seconds: dict[str, Seconds] = Field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    check: Count = 0


class RecordLine(RootModel[Heading | SampleLine | Part]):
    """Any line of the per-sample file ``records.jsonl``."""
