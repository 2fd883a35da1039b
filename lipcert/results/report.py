"""Robustness reports and their parts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, FiniteFloat

from lipcert.results.base import Count, Document, Fraction, LevelName, NormName, Result, Seconds
from lipcert.results.bound import BoundResult, ModelInfo


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
        untried_count: how many of the unknown samples the end of a time limit left before everything was tried on
            them, per eps; empty where none.
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
    untried_count: dict[str, Count] = Field(default_factory=dict)
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
