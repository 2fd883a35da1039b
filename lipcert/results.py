"""The result documents: what every command prints as JSON, and what every face of a report is made from.

Each document names its schema (``lipcert.bound/v1`` ...). Unknown fields are errors, numbers are finite or null.
`model_json_schema()` of each class is the published schema.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, RootModel

NormName = Literal["l1", "l2", "linf"]
LevelName = Literal["estimate", "numerical", "verified", "verified-exec"]
StatusName = Literal["unknown", "certified", "attacked", "misclassified"]
QuantityName = Annotated[
    str, Field(pattern=r"^(output|features|margins|logit (0|[1-9][0-9]*)|margin (0|[1-9][0-9]*) (0|[1-9][0-9]*))$")
]
Count = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(ge=0.0)]


class Document(BaseModel):
    """Base of all documents and their parts: immutable, strict about unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, serialize_by_alias=True)


class Result(Document):
    """A document that functions return: it shows itself as text, in notebooks, and as a data frame.

    How it looks is made in `lipcert.report.notebook`, which is imported when it is first asked for.
    """

    def __str__(self) -> str:
        from lipcert.report import notebook

        return notebook.text(self)

    def __repr__(self) -> str:
        from lipcert.report import notebook

        return notebook.brief(self)

    def _repr_html_(self) -> str:
        from lipcert.report import notebook

        return notebook.html(self)

    def to_pandas(self, rows: Literal["result", "samples"] = "result") -> Any:
        """Return a pandas data frame.

        Args:
            rows: ``result`` for one row per eps of a report, one per method of a comparison, else a single one;
                ``samples`` for the per-sample records of a report.

        Raises:
            UsageError: pandas is not installed (extra ``pandas``), or no records were written.
        """
        from lipcert.report import notebook

        return notebook.frame(self, rows)

    def plot(self) -> Any:
        """Return a matplotlib figure, which shows itself in a notebook.

        Raises:
            UsageError: there is nothing to draw of this kind of result.
        """
        from lipcert.report import notebook

        return notebook.plot(self)


class ModelInfo(Document):
    """The network that was looked at.

    Attributes:
        statement: the function that claims speak of, in words: which arithmetic, and what is known within intervals.
    """

    path: str
    sha256: str | None
    graph_digest: str
    weights_digest: str
    parameters: Count | None
    hidden_neurons: Count
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    dtype: str
    statement: str | None = None


class SolverInfo(Document):
    """What a numerical solver said of its own work; never the source of a bound."""

    name: str
    status: str
    gap: FiniteFloat | None


class LayerContribution(Document):
    """How much one node multiplies (or adds to) the bound.

    Attributes:
        node: name of the node. kind: its operator. factor: norm of an affine operator or slope of an activation.
        cumulative: the bound from the input up to and including this node.
    """

    node: str
    kind: str
    factor: FiniteFloat
    cumulative: FiniteFloat


class BoundResult(Result):
    """One upper bound of a Lipschitz constant (schema ``lipcert.bound/v1``).

    Attributes:
        bound: the upper bound, null where the method refused or failed (then `error` says why).
        bound_hex: the same number exactly (``float.hex``).
        quantity: what is bounded: the whole ``output``, the ``features`` before the last linear layer, one ``logit I``,
            one ``margin I J`` (the difference of two logits), or all ``margins``, of which `bound` is the largest.
        margins: of ``margins`` only: the bound of every difference of two logits.
        lower_bound: best lower bound found for the same constant (level ``estimate``).
        memory: bytes of resident memory that the method needed in addition to what was in use before, libraries
            loaded for it included; null where not measured (only `compare` does, on Linux).
        certificate: path of the certificate file that was written, or null.
        error: why there is no bound: "refused: ..." where the method does not serve the network, else "failed: ...".
    """

    schema_: Literal["lipcert.bound/v1"] = Field(default="lipcert.bound/v1", alias="schema")
    model: ModelInfo
    norm: NormName
    method: str
    bound: FiniteFloat | None
    bound_hex: str | None
    level: LevelName | None
    lower_bound: FiniteFloat | None
    ratio: FiniteFloat | None
    quantity: QuantityName | None = None
    margins: tuple[tuple[FiniteFloat, ...], ...] | None = None
    seconds: Seconds
    memory: Count | None = None
    certificate: str | None
    solver: SolverInfo | None
    contributions: tuple[LayerContribution, ...] = ()
    notes: tuple[str, ...] = ()
    error: str | None = None


class CompareResult(Result):
    """All methods on one network (schema ``lipcert.compare/v1``); rows keep the order of the methods asked for."""

    schema_: Literal["lipcert.compare/v1"] = Field(default="lipcert.compare/v1", alias="schema")
    model: ModelInfo
    norm: NormName
    lower_bound: FiniteFloat | None
    rows: tuple[BoundResult, ...]
    seconds: Seconds


class RequirementResult(Document):
    """The verdict on one requirement expression such as ``certified_accuracy@0.5 >= 0.6``.

    Attributes:
        actual: the value found, null where there is none (then the requirement is not met).
        threshold: what `actual` was compared with: computed exactly from the expression, rounded once to float64.
        baseline: the same quantity in the baseline, where the expression speaks of it.
    """

    text: str
    actual: FiniteFloat | None
    passed: bool
    threshold: FiniteFloat | None = None
    baseline: FiniteFloat | None = None


class FileDigest(Document):
    """A file and the SHA-256 of its bytes in lower-case hex (null where there is no file)."""

    path: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None


class StageResult(Document):
    """What one stage of the cascade did; `decided` counts samples whose verdict it gave at any eps."""

    method: str
    decided: Count
    seconds: Seconds


class Histogram(Document):
    """Counts of certified radii between consecutive edges (raw input units)."""

    edges: tuple[FiniteFloat, ...]
    counts: tuple[Count, ...]


class ClassRow(Document):
    """Accuracy per class; `certified` maps eps (as text) to the fraction of this class that is certified."""

    label: int
    samples: Count
    clean_accuracy: Fraction
    certified: dict[str, Fraction]


class Picture(Document):
    """A small picture: `png` is a PNG file in base64; `width` and `height` in pixels."""

    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]
    png: Annotated[str, Field(pattern="^[A-Za-z0-9+/]+=*$")]


class FeatureValue(Document):
    """One entry of an input that is no picture; `changed` is its value in the adversarial input, where there is one."""

    name: str
    value: FiniteFloat
    changed: FiniteFloat | None = None


class AdversarialExample(Document):
    """An input near a sample that the network does not give the sample's label: level estimate, but a fact.

    Attributes:
        eps: the smallest of the radii asked for at which it was found.
        distance: upper bound of its distance to the sample, in raw input units.
        predicted: a class whose output is at least that of the label, in a plain forward pass.
        picture, change: of the input, and of its difference to the sample with the contrast raised.
    """

    eps: FiniteFloat
    distance: FiniteFloat
    predicted: Count
    picture: Picture | None = None
    change: Picture | None = None


class Exhibit(Document):
    """One sample to look at.

    Attributes:
        kind: chosen as one of the least robust correctly classified samples, or because an attack broke it.
        index: position in the data. radius: certified radius.
        picture: of the sample, where it is a picture; else `features` are its entries, those that change most first.
    """

    kind: Literal["least robust", "attacked"]
    index: Count
    label: Count
    predicted: int
    radius: FiniteFloat
    picture: Picture | None = None
    features: tuple[FeatureValue, ...] = ()
    adversarial: AdversarialExample | None = None


class Provenance(Document):
    """What is needed to repeat and to judge a result.

    Attributes:
        data_sha256: digest of the data file. samples_sha256: of the labelled samples themselves, in raw input units
            and before sharding: two reports with the same digest are about the same samples.
    """

    lipcert: str
    python: str
    numpy: str
    torch: str | None
    platform: str
    command: str | None
    arithmetic: str
    started: str
    data: str
    data_sha256: str | None
    samples_sha256: str | None = None
    settings: dict[str, str | int | float | bool | None]


class ProofInfo(Document):
    """A certificate of samples that a run wrote: each keeps its class for all inputs within `eps` of it.

    Attributes:
        path: of the file. method: that certified them. eps: in raw input units. samples: how many.
    """

    path: str
    method: str
    eps: FiniteFloat
    samples: Count


class Report(Result):
    """A robustness report (schema ``lipcert.report/v1``).

    All accuracies are fractions of *all* samples. Keys of the eps maps are ``format(eps, 'g')``.

    Attributes:
        certified_accuracy: correctly classified and proved stable in the ball, per eps.
        empirical_robust_accuracy: correctly classified and not broken by the attack, per eps (an upper estimate).
        level: the lowest level of any certified sample.
        bound: the one global bound.
        margins: bounds of all differences of two logits, where each rival class was held against its own too.
        output_bound: the bound of the whole output, where a requirement speaks of it.
        mean_certified_radius: mean over all samples of the certified radius, 0 where misclassified.
        curve: certified accuracy from the radii at a grid of eps: pairs (eps, fraction).
        records: path of the per-sample file, or null.
        exhibits: the least robust samples and found adversarial examples.
        proofs: the certificates of samples that local methods certified, where the run wrote them.
    """

    schema_: Literal["lipcert.report/v1"] = Field(default="lipcert.report/v1", alias="schema")
    model: ModelInfo
    samples: Count
    norm: NormName
    eps: tuple[FiniteFloat, ...]
    clean_accuracy: Fraction
    clean_count: Count
    certified_accuracy: dict[str, Fraction]
    certified_count: dict[str, Count]
    empirical_robust_accuracy: dict[str, Fraction]
    attacked_count: dict[str, Count]
    unknown_count: dict[str, Count]
    level: LevelName
    method: str
    bound: BoundResult
    margins: BoundResult | None = None
    output_bound: FiniteFloat | None = None
    mean_certified_radius: FiniteFloat
    per_method: tuple[StageResult, ...]
    curve: tuple[tuple[FiniteFloat, Fraction], ...]
    histogram: Histogram
    per_class: tuple[ClassRow, ...]
    seconds: Seconds
    samples_per_second: FiniteFloat
    device: str
    requirements: tuple[RequirementResult, ...]
    records: str | None
    provenance: Provenance
    notes: tuple[str, ...] = ()
    exhibits: tuple[Exhibit, ...] = ()
    proofs: tuple[ProofInfo, ...] = ()


class BallsInfo(Document):
    """What a certificate of samples claims: all inputs within eps of each of them keep its class.

    Attributes:
        eps: radius of the balls, in raw input units. box: least and largest value of an input, null for none.
        samples: how many. data_digest: SHA-256 of the samples, see `lipcert.proof.local.Samples`.
    """

    eps: FiniteFloat
    box: tuple[FiniteFloat, FiniteFloat] | None
    samples: Count
    data_digest: str


class CheckResult(Result):
    """The checker's verdict on a certificate (schema ``lipcert.check/v1``).

    Attributes:
        bound, quantity: what is claimed, null where the claim is not proved. reason: the verdict in one line.
        balls: what is claimed by a certificate of samples, null where it is not proved and for other certificates.
        code: the reason for machines, one of those of `lipcert.proof.Reason`.
        engine: the arithmetic that checked. statement: the network that the claim speaks of, in words.
        certificate, model: the files that were read. requirements: the verdicts on what was required of the bound.
    """

    schema_: Literal["lipcert.check/v1"] = Field(default="lipcert.check/v1", alias="schema")
    valid: bool
    level: LevelName | None
    bound: FiniteFloat | None
    norm: NormName | None
    rule: str | None
    reason: str
    code: str | None = None
    quantity: QuantityName | None = None
    balls: BallsInfo | None = None
    engine: Literal["float64", "exact"] = "float64"
    statement: str | None = None
    certificate: FileDigest | None = None
    model: FileDigest | None = None
    requirements: tuple[RequirementResult, ...] = ()
    seconds: Seconds


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
        intervals: path of the intervals of all samples, or null.
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
    notes: tuple[str, ...] = ()


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
        key: digest of the sample, the network and the settings, in hexadecimal.
    """

    index: Count
    label: int
    predicted: int
    radius: Annotated[FiniteFloat, Field(ge=0.0)]
    status: tuple[StatusName, ...]
    stage: tuple[str, ...]
    level: tuple[LevelName, ...]
    key: Annotated[str, Field(pattern="^[0-9a-f]{16,64}$")]


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
