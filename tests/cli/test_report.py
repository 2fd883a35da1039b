"""``lipcert report``: merging shards and comparing runs, from the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lipcert.network.evaluate import evaluate
from lipcert.results import Report, RunsResult

RUN = (
    "certify",
    "net.onnx",
    "--data",
    "d.npz",
    "--eps",
    "0.05",
    "--eps",
    "0.5",
    "--device",
    "cpu",
)


@pytest.fixture
def place(cli, network, loaded, tmp_path):
    """A network, and data that it classifies mostly right."""
    images = np.random.default_rng(0).normal(size=(20, *network.input_shape)).astype(np.float32)
    labels = evaluate(network, images.astype(np.float64)).reshape(20, -1).argmax(axis=1)
    labels[::5] = (labels[::5] + 1) % network.nodes[-1].size
    np.savez(tmp_path / "d.npz", images=images, labels=labels)
    return tmp_path


def _run(cli, out, *more):
    method = () if "--method" in more else ("--method", "crown")
    outcome = cli(*RUN, *method, "--report", out, *more)
    assert outcome.code == 0, outcome.err


def test_merged_shards_are_one_run(cli, place):
    _run(cli, "whole")
    for part in ("1", "2"):
        _run(cli, part, "--shard", f"{part}/2")
    outcome = cli("report", "merge", "2", "1", "--out", "both", "--json")
    assert outcome.code == 0
    merged = Report.model_validate(outcome.document)
    whole = Report.model_validate_json((place / "whole" / "report.json").read_text())
    for name in ("samples", "clean_count", "certified_count", "unknown_count", "per_class"):
        assert getattr(merged, name) == getattr(whole, name)
    for name in ("report.html", "report.md", "report.json", "junit.xml", "records.jsonl", "samples.csv"):
        assert (place / "both" / name).stat().st_size > 0
    again = cli("report", "merge", "both", "1", "both", "--out", "again", "--json").document
    for name in ("seconds", "certified_count", "per_method", "per_class", "curve", "histogram"):
        assert again[name] == outcome.document[name]
    rows = [line.split(",")[0] for line in (place / "both" / "samples.csv").read_text().splitlines()[1:]]
    assert rows == [str(index) for index in range(20)]
    assert (
        cli(*RUN, "--method", "crown", "--report", "both", "--resume", "--json").document["certified_count"]
        == merged.certified_count
    )


def test_missing_samples_are_said(cli, place):
    _run(cli, "1", "--shard", "1/4")
    outcome = cli("report", "merge", "1", "--out", "part")
    assert (
        outcome.code == 0 and "15 of 20 samples are missing: 1 to 3, 5 to 7, 9 to 11, 13 to 15, 17 to 19" in outcome.out
    )


def test_requirements_on_a_merge(cli, place):
    _run(cli, "1")
    assert cli("report", "merge", "1", "--out", "m", "--require", "clean_accuracy >= 0.8").code == 0
    assert cli("report", "merge", "1", "--out", "m", "--require", "clean_accuracy > 0.8").code == 1
    refused = cli("report", "merge", "1", "--out", "m", "--require", "bound <= 1")
    assert refused.code == 2 and "cannot be judged from records" in refused.err


def test_merges_that_are_refused(cli, place):
    _run(cli, "1")
    _run(cli, "2", "--norm", "linf")
    (place / "empty").mkdir()
    for folders, words in (
        (("1", "2"), "do not belong together"),
        (("1", "empty"), "no records"),
        (("9",), "no folder"),
    ):
        outcome = cli("report", "merge", *folders, "--out", "m")
        assert outcome.code == 2 and words in outcome.err and outcome.err.count("\n") == 1
    assert not (place / "m").exists()


def test_runs_side_by_side(cli, place):
    _run(cli, "one")
    _run(cli, "two", "--method", "product")
    outcome = cli("report", "compare", "one", "two", "--html", "page.html", "--json")
    assert outcome.code == 0
    result = RunsResult.model_validate(outcome.document)
    assert result.same_samples and [row.name for row in result.rows] == ["one", "two"]
    first, second = result.rows
    assert first.gained is None and second.gained is not None and second.lost is not None
    for key in ("0.05", "0.5"):
        assert second.certified_count[key] == first.certified_count[key] + second.gained[key] - second.lost[key]
        assert second.gained[key] == 0  # crown starts where the product bound ends
    page = (place / "page.html").read_text()
    assert page.count('<path class="line line-') == 2 and "<script" not in page
    text = cli("report", "compare", "one", "two").out
    assert "one" in text and "two" in text and "certified@0.05" in text


def test_other_samples_are_said(cli, place):
    _run(cli, "one")
    _run(cli, "two", "--limit", "10")
    outcome = cli("report", "compare", "one", "two/report.json")
    assert outcome.code == 0 and "different samples" in outcome.err
    document = json.loads(cli("report", "compare", "one", "two", "--json").out)
    assert document["same_samples"] is False and document["rows"][1]["gained"] is None


def test_comparisons_that_are_refused(cli, place):
    _run(cli, "one")
    _run(cli, "two", "--norm", "linf")
    (place / "three").mkdir()
    (place / "three" / "report.json").write_text("{}")
    cases = ((("one",), "two or more"), (("one", "two"), "different norms"), (("one", "three"), "not a report"))
    for folders, words in (*cases, (("one", "four"), "cannot read")):
        outcome = cli("report", "compare", *folders)
        assert outcome.code == 2 and words in outcome.err
