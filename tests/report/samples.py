"""Result documents made by hand, for the tests of their faces."""

from __future__ import annotations

import numpy as np

from lipcert.results import (
    BoundResult,
    ClassRow,
    CompareResult,
    Histogram,
    LayerContribution,
    ModelInfo,
    Provenance,
    Report,
    RequirementResult,
    StageResult,
)

CLASSES = 10


def make_model(path: str = "models/mnist net <256x2>.onnx") -> ModelInfo:
    return ModelInfo(
        path=path, sha256="3d" * 32, graph_digest="a1" * 32, weights_digest="5f" * 32, parameters=269_322,
        hidden_neurons=512, input_shape=(1, 28, 28), output_shape=(10,), dtype="float32",
    )


def make_bound(method: str = "product", value: float = 31.503, certificate: str | None = "run/model.lipcert") -> BoundResult:
    layers = [("scale.fold", "Dense", 4.117), ("relu_1", "relu", 1.0), ("fc2", "Dense", 3.0211), ("relu_2", "relu", 1.0),
              ("norm <b>", "Scale", 0.73), ("fc3 with a rather long name/MatMul_17", "Dense", 3.4712)]
    steps, running = [], 1.0
    for name, kind, factor in layers:
        running *= factor
        steps.append(LayerContribution(node=name, kind=kind, factor=factor, cumulative=running))
    return BoundResult(
        model=make_model(), norm="l2", method=method, bound=value, bound_hex=value.hex(), level="verified",
        lower_bound=24.18, ratio=value / 24.18, seconds=0.31, certificate=certificate, solver=None,
        contributions=tuple(steps), notes=(),
    )


def make_report(samples: int = 10_000, *, met: bool = True, eps: tuple[float, ...] = (0.1, 0.3, 0.5)) -> Report:
    generator = np.random.default_rng(7)
    labels = generator.integers(0, CLASSES, samples)
    clean = generator.random(samples) < 0.974
    radii = np.where(clean, generator.gamma(3.2, 0.16, samples), 0.0)
    certified = {format(e, "g"): int((radii > e).sum()) for e in eps}
    attacked = {format(e, "g"): int((clean & (radii * (1.3 + generator.random(samples)) < e)).sum()) for e in eps}
    grid = np.linspace(0, float(radii.max()), 201)
    counts, edges = np.histogram(radii, bins=40)
    per_class = tuple(
        ClassRow(
            label=c, samples=int((labels == c).sum()), clean_accuracy=float(clean[labels == c].mean()),
            certified={format(e, "g"): float((radii[labels == c] > e).mean()) for e in eps},
        )
        for c in range(CLASSES)
    )
    first = format(eps[0], "g")
    actual = certified[first] / samples
    threshold = 0.5 if met else 0.999
    return Report(
        model=make_model(), samples=samples, norm="l2", eps=eps, clean_accuracy=int(clean.sum()) / samples,
        clean_count=int(clean.sum()), certified_accuracy={k: v / samples for k, v in certified.items()},
        certified_count=certified,
        empirical_robust_accuracy={k: (int(clean.sum()) - v) / samples for k, v in attacked.items()},
        attacked_count=attacked,
        unknown_count={k: int(clean.sum()) - v - attacked[k] for k, v in certified.items()},
        level="verified-exec", method="global", bound=make_bound(), mean_certified_radius=float(radii.mean()),
        per_method=(StageResult(method="global product, per rival", decided=samples, seconds=1.9),
                    StageResult(method="attack (PGD)", decided=sum(attacked.values()), seconds=8.7)),
        curve=tuple((float(e), float((radii > e).mean())) for e in grid),
        histogram=Histogram(edges=tuple(map(float, edges)), counts=tuple(map(int, counts))),
        per_class=per_class, seconds=11.2, samples_per_second=samples / 11.2, device="cpu",
        requirements=(
            RequirementResult(text=f"certified_accuracy@{first} >= {threshold}", actual=actual, passed=actual >= threshold),
            RequirementResult(text="clean_accuracy >= 0.95", actual=int(clean.sum()) / samples, passed=True),
        ),
        records="run/records.csv",
        provenance=Provenance(
            lipcert="0.1.0", python="3.11.7", numpy="2.4.0", torch="2.13.0", platform="Linux x86_64",
            command="lipcert certify 'models/mnist net <256x2>.onnx' --data test.npz --eps 0.1 --eps 0.3 --eps 0.5",
            arithmetic="float64, rounding to nearest, every error counted", started="2026-11-21 11:40 UTC",
            data="data/mnist_test.npz", data_sha256="9c" * 32, settings={"scale": 1 / 255, "limit": None, "level": "verified"},
        ),
        notes=("the last softmax was set aside: it changes no prediction",),
    )


def make_comparison() -> CompareResult:
    refused = make_bound("absolute").model_copy(
        update={"bound": None, "bound_hex": None, "level": None, "ratio": None, "error": "it is for l1, linf, not l2"}
    )
    rows = (make_bound("product", 36.658, None), make_bound("lipsdp", 24.36635, None), make_bound("eclipse-fast", 26.81, None), refused)
    return CompareResult(model=make_model(), norm="l2", lower_bound=24.18, rows=rows, seconds=3.2)
