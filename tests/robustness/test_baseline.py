"""A baseline is an earlier result about the same thing, or it is refused."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sample_documents import make_bound, make_check, make_comparison, make_report
from small_networks import random_chain

from lipcert.errors import UsageError
from lipcert.report.json import write_document
from lipcert.results import Document, Report
from lipcert.robustness.baseline import bound_requirements, hold, read_baseline
from lipcert.robustness.certifier import certify
from lipcert.robustness.requirements import parse_requirements

EPS = (0.1, 0.3, 0.5)


@pytest.fixture
def saved(tmp_path: Path) -> Any:
    def save(document: Document, **changes: Any) -> Path:
        path = tmp_path / "baseline.json"
        write_document(path, document.model_copy(update=changes))
        return path

    return save


def test_a_report_gives_exact_fractions(saved: Any) -> None:
    report = make_report(700)
    baseline = read_baseline(saved(report, output_bound=7.5))
    texts = [
        "certified_accuracy@0.3 >= baseline",
        "empirical_robust_accuracy@0.3 >= baseline",
        "clean_accuracy >= baseline",
        "bound <= baseline",
    ]
    values = [baseline.value(requirement, "l2") for requirement in parse_requirements(texts, EPS)]
    certified, attacked = report.certified_count["0.3"], report.attacked_count["0.3"]
    counts = [certified, report.clean_count - attacked, report.clean_count]
    assert values == [*(Fraction(count, 700) for count in counts), Fraction(7.5)]


@pytest.mark.parametrize(
    ("text", "norm", "words"),
    [
        ("certified_accuracy@0.2 >= baseline", "l2", "at eps 0.2"),
        ("certified_accuracy@0.1 >= baseline", "linf", "about l2, this run about linf"),
        ("bound <= baseline", "l2", "no bound of the output in l2: it has of the features in l2"),
    ],
)
def test_what_a_report_lacks_is_named(saved: Any, text: str, norm: str, words: str) -> None:
    features = make_bound().model_copy(update={"quantity": "features"})
    baseline = read_baseline(saved(make_report(100), bound=features))
    with pytest.raises(UsageError, match=words) as caught:
        hold(parse_requirements([text], (0.1, 0.2)), baseline, norm)
    assert "\n" not in str(caught.value)


def test_an_attack_that_did_not_run_is_no_baseline(saved: Any) -> None:
    baseline = read_baseline(saved(make_report(100), attacked_count={}, empirical_robust_accuracy={}))
    with pytest.raises(UsageError, match=r"no empirical_robust_accuracy at eps 0\.1"):
        hold(parse_requirements(["empirical_robust_accuracy@0.1 >= baseline"], EPS), baseline, "l2")


@pytest.mark.parametrize(
    "document",
    [make_bound(value=2.5), make_check().model_copy(update={"bound": 2.5, "quantity": "output"}), make_report(50)],
    ids=["bound", "check", "report"],
)
def test_every_document_with_a_bound_is_a_baseline_of_bounds(saved: Any, document: Document) -> None:
    path = saved(document, **({"bound": make_bound(value=2.5)} if isinstance(document, Report) else {}))
    (requirement,) = bound_requirements(["bound <= 1.05 * baseline"], path, "l2", "output")
    assert requirement.judge(Fraction(2.625)).passed
    assert not requirement.judge(Fraction(np.nextafter(2.625, 3))).passed
    for norm, quantity in (("linf", "output"), ("l2", "features")):
        with pytest.raises(UsageError, match=f"no bound of the {quantity} in {norm}"):
            bound_requirements(["bound <= baseline"], path, norm, quantity)


def test_a_bound_that_is_not_proved_is_no_baseline(saved: Any) -> None:
    with pytest.raises(UsageError, match="none that is proved"):
        bound_requirements(["bound <= baseline"], saved(make_check(valid=False)), "l2", "output")


def test_a_bound_is_no_report(saved: Any) -> None:
    baseline = read_baseline(saved(make_bound()))
    with pytest.raises(UsageError, match="is no report, so it has no clean_accuracy"):
        hold(parse_requirements(["clean_accuracy >= baseline"], EPS), baseline, "l2")


def test_a_baseline_is_there_where_it_is_spoken_of_and_only_there(saved: Any) -> None:
    with pytest.raises(UsageError, match="give --baseline FILE"):
        bound_requirements(["bound <= baseline"], None, "l2", "output")
    with pytest.raises(UsageError, match="no requirement speaks of the baseline"):
        bound_requirements(["bound <= 3"], saved(make_bound()), "l2", "output")


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff\xfe", b'{"schema": "lipcert.report/v1"}'])
def test_what_is_no_result_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "b.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"is not the JSON that") as caught:
        read_baseline(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="cannot read the baseline"):
        read_baseline(tmp_path / "missing.json")


def test_a_comparison_is_no_baseline(saved: Any) -> None:
    with pytest.raises(UsageError, match="is not the JSON that"):
        read_baseline(saved(make_comparison()))


@pytest.mark.parametrize("field", ["clean_accuracy", "clean_count", "samples"])
def test_numbers_changed_by_hand_are_noticed(saved: Any, field: str) -> None:
    path = saved(make_report(100))
    document = json.loads(path.read_text())
    document[field] = 0.25 if field == "clean_accuracy" else document[field] - 1
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError, match="contradicts itself"):
        read_baseline(path)


# --- the certifier --------------------------------------------------------------------------------------------

NETWORK = random_chain(0)
FAST: dict[str, Any] = {"method": "product", "eps": (0.02,)}


def samples(seed: int, count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    shape = (count, *NETWORK.input_shape)
    return generator.random(shape).astype(np.float32), generator.integers(0, NETWORK.nodes[-1].size, count)


def test_a_run_is_held_against_an_earlier_one(tmp_path: Path) -> None:
    first = certify(NETWORK, samples(1), requirements=("bound < 1e9",), **FAST)
    path = tmp_path / "report.json"
    write_document(path, first)
    texts = ("certified_accuracy@0.02 >= baseline", "clean_accuracy > baseline", "bound <= 1 * baseline")
    again = certify(NETWORK, samples(1), requirements=texts, baseline=path, **FAST)
    assert [r.passed for r in again.requirements] == [True, False, True]
    assert [r.baseline for r in again.requirements] == [
        first.certified_accuracy["0.02"],
        first.clean_accuracy,
        first.output_bound,
    ]
    assert all(r.actual == r.baseline == r.threshold for r in again.requirements)


@pytest.mark.parametrize(
    "change",
    [{"data": samples(2)}, {"limit": 39}, {"scale": 0.5}, {"shard": "1/2"}],
    ids=["data", "limit", "scale", "shard"],
)
def test_other_samples_are_no_baseline(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "report.json"
    write_document(path, certify(NETWORK, samples(1), requirements=("bound < 1e9",), **FAST))
    settings = {"data": samples(1), "baseline": path, **FAST, **change}
    data = settings.pop("data")
    with pytest.raises(UsageError, match="other samples"):
        certify(NETWORK, data, requirements=("clean_accuracy >= baseline",), **settings)
    report = certify(NETWORK, data, requirements=("bound <= baseline",), **settings)
    assert report.requirements[0].passed, "a bound is about no samples"


def test_the_baseline_is_read_before_anything_else(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the baseline"):
        certify(NETWORK, None, eps=(0.1,), requirements=("bound <= baseline",), baseline=tmp_path / "x.json")
    with pytest.raises(UsageError, match="needs a baseline"):
        certify(NETWORK, None, eps=(0.1,), requirements=("bound <= baseline",))
