"""Result documents made by hand, for the tests of their faces."""

from __future__ import annotations

import base64
import io
from typing import Literal

import numpy as np
from PIL import Image

from lipcert.results import (
    AdversarialExample,
    BoundResult,
    CheckResult,
    ClassRow,
    CompareResult,
    DoctorResult,
    Exhibit,
    FeatureValue,
    Finding,
    Histogram,
    InspectResult,
    LayerContribution,
    ModelInfo,
    NodeInfo,
    OutputChange,
    Picture,
    PlannedStage,
    PlanResult,
    Provenance,
    RegressionReport,
    Report,
    RequirementResult,
    RunRow,
    RunsResult,
    StageResult,
    UnsupportedPart,
)

CLASSES = 10
LAYERS = (
    ("scale.fold", "Dense", 4.117),
    ("relu_1", "relu", 1.0),
    ("fc2", "Dense", 3.0211),
    ("relu_2", "relu", 1.0),
    ("norm <b>", "Scale", 0.73),
    ("fc3 with a rather long name/MatMul_17", "Dense", 3.4712),
)


def make_model(path: str = "models/mnist net <256x2>.onnx") -> ModelInfo:
    return ModelInfo(
        path=path,
        sha256="3d" * 32,
        graph_digest="a1" * 32,
        weights_digest="5f" * 32,
        parameters=269_322,
        hidden_neurons=512,
        input_shape=(1, 28, 28),
        output_shape=(10,),
        dtype="float32",
    )


def make_bound(method: str = "product", value: float = 31.503) -> BoundResult:
    """A bound; its layers multiply to another number, as those of methods that do not go layer by layer."""
    running, steps = 1.0, []
    for name, kind, factor in LAYERS:
        running *= factor
        steps.append(LayerContribution(node=name, kind=kind, factor=factor, cumulative=running))
    return BoundResult(
        model=make_model(),
        norm="l2",
        method=method,
        bound=value,
        bound_hex=value.hex(),
        level="verified",
        lower_bound=24.18,
        ratio=value / 24.18,
        quantity="output",
        seconds=0.31,
        certificate="run/model.lipcert",
        solver=None,
        contributions=tuple(steps),
    )


def make_refusal(method: str = "absolute") -> BoundResult:
    nothing = dict.fromkeys(("bound", "bound_hex", "level", "ratio", "certificate"))
    return make_bound(method).model_copy(update={**nothing, "contributions": (), "error": "it is for l1, linf, not l2"})


def make_report(
    samples: int = 10_000, *, eps: tuple[float, ...] = (0.1, 0.3, 0.5), threshold: float = 0.5, points: int = 201
) -> Report:
    """A report on made-up radii; `threshold` is required of the certified accuracy at the first eps."""
    generator = np.random.default_rng(7)
    labels = generator.integers(0, CLASSES, samples)
    clean = generator.random(samples) < 0.974
    radii = np.where(clean, generator.gamma(3.2, 0.16, samples), 0.0)
    broken = clean[:, None] & (radii[:, None] * (1.3 + generator.random((samples, 1))) < np.array(eps))
    keys = [format(e, "g") for e in eps]
    certified = {key: int((radii > e).sum()) for key, e in zip(keys, eps, strict=True)}
    attacked = {key: int(column.sum()) for key, column in zip(keys, broken.T, strict=True)}
    correct = int(clean.sum())
    actual = certified[keys[0]] / samples
    counts, edges = np.histogram(radii, bins=40)
    return Report(
        model=make_model(),
        samples=samples,
        norm="l2",
        eps=eps,
        clean_accuracy=correct / samples,
        clean_count=correct,
        certified_accuracy={key: value / samples for key, value in certified.items()},
        certified_count=certified,
        empirical_robust_accuracy={key: (correct - value) / samples for key, value in attacked.items()},
        attacked_count=attacked,
        unknown_count={key: correct - certified[key] - attacked[key] for key in keys},
        level="verified-exec",
        method="global",
        bound=make_bound(),
        mean_certified_radius=float(radii.mean()),
        per_method=(
            StageResult(method="global product, per rival", decided=samples, seconds=1.9),
            StageResult(method="attack", decided=max(attacked.values()), seconds=8.7),
        ),
        curve=tuple((float(e), float((radii > e).mean())) for e in np.linspace(0, radii.max(), points)),
        histogram=Histogram(edges=tuple(map(float, edges)), counts=tuple(map(int, counts))),
        per_class=_classes(labels, clean, radii, eps),
        seconds=11.2,
        samples_per_second=samples / 11.2,
        device="cpu",
        requirements=(
            RequirementResult(
                text=f"certified_accuracy@{keys[0]} >= {threshold}", actual=actual, passed=actual >= threshold
            ),
            RequirementResult(text="clean_accuracy >= 0.95", actual=correct / samples, passed=True),
        ),
        records="run/records.csv",
        provenance=_provenance(),
        notes=("the last softmax was set aside: it changes no prediction",),
    )


def _classes(labels: np.ndarray, clean: np.ndarray, radii: np.ndarray, eps: tuple[float, ...]) -> tuple[ClassRow, ...]:
    return tuple(
        ClassRow(
            label=c,
            samples=int((labels == c).sum()),
            clean_accuracy=float(clean[labels == c].mean()),
            certified={format(e, "g"): float((radii[labels == c] > e).mean()) for e in eps},
        )
        for c in range(CLASSES)
    )


def _provenance() -> Provenance:
    return Provenance(
        lipcert="0.1.0",
        python="3.11.7",
        numpy="2.4.0",
        torch="2.13.0",
        platform="Linux x86_64",
        command="lipcert certify 'models/mnist net <256x2>.onnx' --data test.npz --eps 0.1 --eps 0.3 --eps 0.5",
        arithmetic="float64, rounding to nearest, every error counted",
        started="2026-11-21 11:40 UTC",
        data="data/mnist_test.npz",
        data_sha256="9c" * 32,
        settings={"scale": 1 / 255, "limit": None, "level": "verified"},
    )


def make_exhibits(*, pictures: bool = True, side: int = 8, count: int = 2) -> tuple[Exhibit, ...]:
    """Samples of noise, which compresses worst: `count` of each kind."""
    generator = np.random.default_rng(11)

    def draw(channels: int) -> Picture:
        noise = generator.integers(0, 256, (side, side, channels), dtype=np.uint8)
        content = io.BytesIO()
        Image.fromarray(noise[..., 0] if channels == 1 else noise).save(content, "PNG")
        return Picture(width=side, height=side, png=base64.b64encode(content.getvalue()).decode())

    def make(kind: Literal["least robust", "attacked"], index: int) -> Exhibit:
        features = (
            FeatureValue(name="speed of <own> ship", value=0.5, changed=0.625),
            FeatureValue(name="entry 1", value=-1.0, changed=-1.0),
        )
        found = AdversarialExample(
            eps=0.3,
            distance=0.1234567,
            predicted=5,
            picture=draw(3) if pictures else None,
            change=draw(1) if pictures else None,
        )
        return Exhibit(
            kind=kind,
            index=index,
            label=3,
            predicted=3,
            radius=0.0123456,
            picture=draw(3) if pictures else None,
            features=() if pictures else features,
            adversarial=found,
        )

    weak = [make("least robust", 7 + k) for k in range(count)]
    return (*weak, *(make("attacked", 107 + k) for k in range(count)))


def make_comparison() -> CompareResult:
    bounds = (make_bound("product", 36.658), make_bound("lipsdp", 24.36635), make_bound("fast", 26.81))
    rows = (*bounds, make_refusal())
    return CompareResult(model=make_model(), norm="l2", lower_bound=24.18, rows=rows, seconds=3.2)


def make_runs() -> RunsResult:
    """Three runs on the same samples, the last with radii of its own; two have records."""
    rows = []
    for number, eps in enumerate([(0.1, 0.3), (0.1, 0.3), (0.3, 0.5)]):
        report = make_report(400 + number, eps=eps)
        shared = {name: getattr(report, name) for name in RunRow.model_fields if name in Report.model_fields}
        counts = dict.fromkeys(report.certified_count, 3 * number)
        changes = {"gained": counts, "lost": dict.fromkeys(counts, 1)} if number == 1 else {}
        bounds = {"bound": report.bound.bound, "lower_bound": report.bound.lower_bound}
        rows.append(RunRow.model_validate({**shared, **changes, **bounds, "name": f"runs/<{number}>"}))
    notes = ("the runs count proofs of different levels: numerical, verified",)
    return RunsResult(norm="l2", eps=(0.1, 0.3, 0.5), same_samples=False, rows=tuple(rows), notes=notes)


def make_check(*, valid: bool = True) -> CheckResult:
    return CheckResult(
        valid=valid,
        level="verified" if valid else None,
        bound=31.503 if valid else None,
        norm="l2",
        rule="product/v1",
        reason="the claim is proved for this model" if valid else "the certificate belongs to other weights",
        seconds=0.2,
    )


def make_inspection() -> InspectResult:
    nodes = (
        NodeInfo(name="x", kind="Input", shape=(4,), parameters=0, slopes=None, norm_l2=None, norm_linf=None),
        NodeInfo(name="fc [1]", kind="Dense", shape=(3,), parameters=15, slopes=None, norm_l2=1.5, norm_linf=2),
        NodeInfo(name="g", kind="gelu", shape=(3,), parameters=0, slopes=(-1, 1.2), norm_l2=None, norm_linf=None),
    )
    return InspectResult(path="m.onnx", model=make_model("m.onnx"), nodes=nodes, unsupported=(), notes=("a note",))


def make_refused_inspection() -> InspectResult:
    part = UnsupportedPart(where="/attention", what="MatMul", why="a product of two values has no Lipschitz bound")
    return InspectResult(path="m.onnx", model=None, nodes=(), unsupported=(part,), notes=())


def make_plan() -> PlanResult:
    stages = (
        PlannedStage(
            name="global", kind="global", included=True, reason="first", level="verified", cost="one forward pass",
            multiplications=269_000.0, batch_size=2000,
        ),
        PlannedStage(
            name="branching", kind="local", included=False, reason="too large", level=None, cost="minutes",
            multiplications=None, batch_size=None,
        ),
    )  # fmt: skip
    return PlanResult(
        model=make_model(),
        samples=100,
        norm="l2",
        eps=(0.1, 0.5),
        level="verified",
        method="cascade",
        device="cpu",
        bound_method="lipsdp",
        bound_reason="it is tight for dense networks",
        batch_size=2000,
        time_limit=None,
        budget_per_sample=1.0,
        stages=stages,
    )


def make_regression() -> RegressionReport:
    changes = tuple(OutputChange(output=j, largest=1.5 + j, mean=0.7, lower=-2.0, upper=9.0) for j in range(2))
    return RegressionReport(
        model=make_model(),
        samples=100,
        norm="linf",
        eps=(1.0,),
        level="verified",
        methods=("global", "alpha-crown"),
        changes={"1": changes},
        bound=make_bound(),
        per_input=(0.5, 2.0),
        scale=(373.94992, 1.0),
        seconds=1.25,
        intervals=None,
    )


def make_diagnosis() -> DoctorResult:
    findings = (
        Finding(topic="arithmetic", name="float64", status="ok", detail="as it should be"),
        Finding(topic="solver", name="MOSEK", status="absent", detail="not installed", remedy="optional"),
    )
    return DoctorResult(healthy=True, findings=findings)
