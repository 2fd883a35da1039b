"""Whole runs: counts, shards, records, resuming, levels, refusals."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from small_networks import chain, image_chain, labelled, random_chain

import lipcert
from lipcert.bounds.engine import bound
from lipcert.errors import CertificateError, InconclusiveError, UsageError
from lipcert.network import Builder, Enclosure
from lipcert.network.operators import Dense, Elementwise, Softmax
from lipcert.results import Report
from lipcert.robustness.attack import Attack
from lipcert.robustness.certifier import certify, pick_device

QUICK = {"lower_seconds": 0.0, "attack": Attack(steps=5, restarts=1)}
COUNTS = ("certified_count", "attacked_count", "unknown_count")


@pytest.fixture(scope="module")
def network():
    return random_chain(0)


@pytest.fixture(scope="module")
def data(network):
    """Sixty samples, every sixth with a wrong label."""
    images, labels = labelled(network, 60, scale=0.5)
    labels[::6] = (labels[::6] + 1) % 4
    return images, labels


def _run(network, data, **settings):
    return certify(network, data, **({"eps": (0.02, 0.1, 0.5)} | QUICK | settings))


def _lines(folder):
    """The heading and the samples; other lines say what the processes did."""
    lines = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    return [lines[0], *(line for line in lines if "index" in line)]


def test_every_sample_is_counted_once(network, data):
    report = _run(network, data)
    for key in ("0.02", "0.1", "0.5"):
        total = sum(getattr(report, name)[key] for name in COUNTS)
        assert total == report.clean_count == 50
        assert report.certified_accuracy[key] == report.certified_count[key] / 60
        assert report.empirical_robust_accuracy[key] == (50 - report.attacked_count[key]) / 60
        assert report.certified_accuracy[key] <= report.empirical_robust_accuracy[key] <= report.clean_accuracy
    assert report.samples == 60 and report.level == "verified"
    assert report.certified_count["0.02"] > 0 and report.attacked_count["0.5"] > 0
    stages = [stage.method for stage in report.per_method]
    assert stages[:3] == ["global", "attack", "intervals"] and {"crown", "alpha-crown"} < set(stages)
    assert sum(row.samples for row in report.per_class) == 60
    assert sum(report.histogram.counts) == report.clean_count
    curve = dict(report.curve)
    assert curve[0.1] == report.certified_accuracy["0.1"]
    fractions = [share for _, share in report.curve]
    assert fractions == sorted(fractions, reverse=True)
    assert Report.model_validate_json(report.model_dump_json()) == report


def test_the_public_function(network, data):
    report = lipcert.certify(network, data, eps=[0.1], norm="linf", method="global")
    assert report.norm == "linf" and report.empirical_robust_accuracy == {} and report.attacked_count == {}
    assert any("no attack" in note for note in report.notes)


def test_radii_and_statuses_agree(network, data, tmp_path):
    report = _run(network, data, folder=tmp_path)
    assert report.records == str(tmp_path / "records.jsonl")
    header, *rows = _lines(tmp_path)
    assert header["eps"] == [0.02, 0.1, 0.5] and len(rows) == 60
    for row in rows:
        wrong = row["predicted"] != row["label"]
        assert row["status"] == ["misclassified"] * 3 if wrong else True
        for eps, status in zip(header["eps"], row["status"], strict=True):
            assert (status == "certified") == (not wrong and row["radius"] >= eps)
    assert report.mean_certified_radius == pytest.approx(np.mean([row["radius"] for row in rows]))


class _Cut(Exception):
    """The run is cut off here."""


def _cut_after(batches):
    calls = iter(range(10**6))

    def progress(done, total):
        if next(calls) == batches:
            raise _Cut

    return progress


@pytest.mark.parametrize("torn", ["", '{"index":12,"lab', '{"schema": "lipc'])
def test_a_run_that_was_cut_off_goes_on(network, data, tmp_path, torn):
    whole = _run(network, data, folder=_made(tmp_path / "whole"), batch_size=10)
    cut = _made(tmp_path / "cut")
    with pytest.raises(_Cut):
        _run(network, data, folder=cut, batch_size=10, progress=_cut_after(3))
    path = cut / "records.jsonl"
    assert len(_lines(cut)) == 31
    path.write_text(path.read_text() + torn)
    steps = []
    resumed = _run(
        network, data, folder=cut, batch_size=10, resume=True, progress=lambda done, total: steps.append((done, total))
    )
    assert steps == [(30, 60), (40, 60), (50, 60), (60, 60)]
    assert _lines(cut)[1:] == _lines(tmp_path / "whole")[1:]
    for name in (*COUNTS, "clean_count", "mean_certified_radius", "histogram", "curve", "per_class"):
        assert getattr(resumed, name) == getattr(whole, name)
    assert [s.decided for s in resumed.per_method] == [s.decided for s in whole.per_method]


def _made(folder):
    folder.mkdir()
    return folder


def test_a_torn_header_starts_afresh(network, data, tmp_path):
    (tmp_path / "records.jsonl").write_text('{"schema": "lip')
    assert _run(network, data, folder=tmp_path, resume=True).samples == 60
    assert len(_lines(tmp_path)) == 61


def test_nothing_left_to_resume(network, data, tmp_path):
    first = _run(network, data, folder=tmp_path)
    again = _run(network, data, folder=tmp_path, resume=True)
    assert again.certified_count == first.certified_count
    assert again.samples_per_second == pytest.approx(first.samples_per_second)
    assert [stage.seconds for stage in again.per_method] == [stage.seconds for stage in first.per_method]
    assert len(_lines(tmp_path)) == 61


def test_without_resume_the_records_are_replaced(network, data, tmp_path):
    _run(network, data, folder=tmp_path)
    _run(network, data, folder=tmp_path, limit=7)
    assert len(_lines(tmp_path)) == 8


@pytest.mark.parametrize(
    "other",
    [
        {"eps": (0.02, 0.1)},
        {"norm": "linf"},
        {"level": "verified-exec"},
        {"method": "global"},
        {"attack": Attack(steps=6, restarts=1)},
    ],
)
def test_records_of_another_run_are_refused(network, data, tmp_path, other):
    _run(network, data, folder=tmp_path)
    with pytest.raises(UsageError, match="belong to a run with another"):
        _run(network, data, folder=tmp_path, resume=True, **other)
    with pytest.raises(UsageError, match="belong to a run with another"):
        _run(random_chain(1), data, folder=tmp_path, resume=True)
    assert len(_lines(tmp_path)) == 61


@pytest.mark.parametrize("damage", ["garbage\n", '{"digest": 1}\n{}\n', "[]\n"])
def test_damaged_records_are_refused(network, data, tmp_path, damage):
    (tmp_path / "records.jsonl").write_text(damage)
    with pytest.raises(UsageError, match=r"records\.jsonl"):
        _run(network, data, folder=tmp_path, resume=True)


def test_shards_are_a_partition(network, data, tmp_path):
    whole = _run(network, data)
    parts = [_run(network, data, shard=f"{i}/7", folder=_made(tmp_path / str(i))) for i in range(1, 8)]
    indices = [row["index"] for i in range(1, 8) for row in _lines(tmp_path / str(i))[1:]]
    assert sorted(indices) == list(range(60))
    for name in ("certified_count", "unknown_count"):
        for key in whole.certified_count:
            if name == "certified_count":
                assert sum(getattr(part, name)[key] for part in parts) == getattr(whole, name)[key]
    assert sum(part.samples for part in parts) == 60
    assert any("shard 1/7" in note for note in parts[0].notes)


@pytest.mark.parametrize("size", [1, 7, 60, 1000])
def test_the_batch_size_changes_nothing(network, data, size):
    one, two = (_run(network, data, batch_size=n, method="global") for n in (size, 13))
    assert one.certified_count == two.certified_count
    assert one.mean_certified_radius == pytest.approx(two.mean_certified_radius, rel=1e-9)


def test_float32_first_gives_the_same_verdicts(network, data, monkeypatch):
    fine = _run(network, data, method="global")
    monkeypatch.setattr("lipcert.robustness.basis.SMALL_WORK", -1)
    coarse = _run(network, data, method="global")
    assert coarse.certified_count == fine.certified_count and coarse.clean_count == fine.clean_count
    assert coarse.mean_certified_radius < fine.mean_certified_radius
    assert coarse.mean_certified_radius == pytest.approx(fine.mean_certified_radius, abs=1e-4)


def test_rounding_costs_at_most_a_tenth_of_a_radius_that_matters(network, data, monkeypatch, tmp_path):
    fine = _run(network, data, method="product", folder=_made(tmp_path / "fine"), eps=(1e-9,))
    monkeypatch.setattr("lipcert.robustness.basis.SMALL_WORK", -1)
    coarse = _run(network, data, method="product", folder=_made(tmp_path / "coarse"), eps=(1e-9,))
    assert coarse.certified_count == fine.certified_count
    one, two = (np.array([row["radius"] for row in _lines(tmp_path / name)[1:]]) for name in ("fine", "coarse"))
    assert (two <= one).all() and (two >= 0.9 * one).all()
    assert (two < one).any()


def test_only_open_verdicts_go_to_float64(network, data, tmp_path, monkeypatch):
    """With eps set to the float64 radius of one sample, that sample alone is open after float32."""
    from lipcert.robustness.passes import forward

    _run(network, data, method="product", folder=tmp_path)
    radius = max(row["radius"] for row in _lines(tmp_path)[1:])
    sizes = []
    original = forward.ForwardPass.__call__

    def watched(self, images):
        sizes.append((self.precision.name, len(images)))
        return original(self, images)

    monkeypatch.setattr("lipcert.robustness.basis.SMALL_WORK", -1)
    monkeypatch.setattr(forward.ForwardPass, "__call__", watched)
    report = _run(network, data, method="product", eps=(radius,))
    assert sizes == [("float32", 60), ("float32", 60), ("float64", 1)]  # the first 60 are the probe
    assert report.certified_count[format(radius, "g")] == 1


def test_verified_exec(network, data):
    report = _run(network, data, level="verified-exec", method="global")
    plain = _run(network, data, method="global")
    assert report.level == "verified-exec"
    assert report.mean_certified_radius < plain.mean_certified_radius
    assert any("float32, operator by operator" in note for note in report.notes)


def test_verified_exec_is_refused_where_it_cannot_be_true(data):
    builder = Builder((6,))
    builder.add(Dense(Enclosure.exact(np.ones((4, 6))) / Enclosure.exact(3.0), Enclosure.exact(np.zeros(4))), 0)
    with pytest.raises(InconclusiveError, match="out of reach"):
        _run(builder.build(), data, level="verified-exec")
    soft = chain((np.eye(4, 6), np.zeros(4)), tail=[Softmax(0)])
    with pytest.raises(InconclusiveError, match="softmax"):
        _run(soft, data, level="verified-exec")
    assert _run(soft, data).level == "verified"


def test_a_certificate_gives_the_bound(network, data, tmp_path):
    for quantity in ("features", "output"):
        found = bound(network, "product", "l2", quantity=quantity)
        found.certificate.save(tmp_path / "c.lipcert")
        report = _run(network, data, certificate=tmp_path / "c.lipcert", method="global")
        direct = _run(network, data, method="product", quantity=quantity)
        assert report.bound.bound == direct.bound.bound == found.value
        assert report.certified_count == direct.certified_count
        assert report.bound.certificate == str(tmp_path / "c.lipcert")


def test_a_certificate_of_something_else(network, data, tmp_path):
    bound(random_chain(1), "product", "l2").certificate.save(tmp_path / "other.lipcert")
    with pytest.raises(CertificateError, match="does not hold"):
        _run(network, data, certificate=tmp_path / "other.lipcert")
    bound(network, "product", "linf").certificate.save(tmp_path / "linf.lipcert")
    with pytest.raises(UsageError, match="about linf"):
        _run(network, data, certificate=tmp_path / "linf.lipcert")


def test_requirements_are_judged_and_read_first(network, data):
    texts = ("certified_accuracy@0.02 >= 0.1", "clean_accuracy > 0.99", "bound <= 1e9", "bound < 1e-9")
    report = _run(network, data, requirements=texts)
    assert [r.passed for r in report.requirements] == [True, False, True, False]
    assert report.requirements[2].actual >= report.bound.bound * 0.01
    for text in ("certified_accuracy@0.3 > 0", "speed > 1"):
        with pytest.raises(UsageError, match="not computed"):
            certify(None, None, eps=(0.1,), requirements=(text,))
    with pytest.raises(UsageError, match="needs an attack"):
        certify(None, None, eps=(0.1,), method="global", requirements=("empirical_robust_accuracy@0.1 > 0",))


def test_the_bound_of_a_requirement_is_that_of_the_output(network, data):
    report = _run(network, data, requirements=("bound <= 1",), method="product")
    assert report.requirements[0].actual == bound(network, "product", "l2").value
    assert report.bound.bound == bound(network, "product", "l2", quantity="features").value


def test_the_lower_bound_stands_beside(network, data):
    report = _run(network, data, lower_seconds=0.2)
    assert 0 < report.bound.lower_bound <= report.bound.bound
    assert report.bound.ratio == report.bound.bound / report.bound.lower_bound


def test_a_bound_that_overflows_is_inconclusive():
    big = np.full((2, 1), 1e200)
    network = chain((big, np.zeros(2)), (np.array([[1e200, 0.0], [-1e200, 0.0]]), np.zeros(2)))
    with pytest.raises(InconclusiveError):
        _run(network, (np.ones((2, 1), np.float32), np.array([0, 0])), method="product", quantity="output")


def test_overflow_in_the_forward_pass_counts_as_unknown():
    network = chain((np.array([[1e30], [-1e30]]), np.zeros(2)), (np.eye(2) * 1e30, np.zeros(2)), activation="relu")
    images = np.array([[1e38], [1.0]], np.float32)
    report = certify(network, (images * np.float32(3), np.array([0, 0])), eps=(1e-3,), method="product")
    assert report.unknown_count["0.001"] + report.certified_count["0.001"] == 2
    huge = chain((np.array([[1e154], [-1e154]]), np.zeros(2)), (np.eye(2) * 1e150, np.zeros(2)), activation="relu")
    report = certify(huge, (images, np.array([0, 0])), eps=(1e-3,), method="product")
    assert report.unknown_count["0.001"] >= 1 and report.clean_count <= 1
    assert any("not finite" in note for note in report.notes)


def test_images_are_brought_to_the_networks_shape():
    weight = np.random.default_rng(0).normal(size=(3, 12))
    images = np.random.default_rng(1).random((8, 12), dtype=np.float32)
    labels = (images @ weight.T).argmax(axis=1)
    flat = _run(chain((weight, np.zeros(3))), (images, labels), method="global")
    shaped = _run(image_chain((1, 3, 4), weight, np.zeros(3)), (images, labels), method="global")
    assert shaped.mean_certified_radius == pytest.approx(flat.mean_certified_radius, rel=1e-9)
    assert shaped.clean_accuracy == 1.0


WRONG = [
    ({"eps": ()}, "no radius"),
    ({"eps": (0.0,)}, "not a radius"),
    ({"eps": (-1.0,)}, "not a radius"),
    ({"eps": (math.nan,)}, "not a radius"),
    ({"eps": (0.1, 0.1000000001)}, "equal to six digits"),
    ({"norm": "l3"}, "no norm 'l3'"),
    ({"method": "magic"}, "magic"),
    ({"level": "estimate"}, "verified"),
    ({"quantity": "logits"}, "no quantity"),
    ({"batch_size": 0}, "batch size"),
    ({"shard": "0/4"}, "not a shard"),
    ({"shard": "5/4"}, "not a shard"),
    ({"shard": "1"}, "not a shard"),
    ({"shard": "70/70"}, "is empty"),
    ({"limit": 0}, "limit"),
    ({"resume": True}, "nothing to resume"),
    ({"device": "tpu"}, "no device 'tpu'"),
    ({"device": "cuda:99"}, "no device 'cuda:99'"),
    ({"speed": 3}, "no setting 'speed'"),
]


@pytest.mark.parametrize(("settings", "word"), WRONG, ids=[word for _, word in WRONG])
def test_wrong_settings(network, data, settings, word):
    with pytest.raises(UsageError, match=word) as caught:
        _run(network, data, **settings)
    assert "\n" not in str(caught.value)


def test_eps_is_needed(network, data):
    with pytest.raises(UsageError, match="eps"):
        certify(network, data)


def test_a_single_output_is_refused(data):
    with pytest.raises(UsageError, match="single output"):
        _run(chain((np.ones((1, 6)), np.zeros(1))), data)


def test_folders_that_cannot_be_made(network, data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot make the folder"):
        _run(network, data, folder=tmp_path / "file" / "run")
    (tmp_path / "records.jsonl").mkdir()
    with pytest.raises(UsageError, match="cannot write the records"):
        _run(network, data, folder=tmp_path)


def test_the_device_is_chosen():
    assert pick_device("cpu") == "cpu"
    assert pick_device("auto") in ("cpu", "cuda")


def test_a_trailing_activation_has_no_head(data):
    network = chain((np.eye(4, 6), np.zeros(4)), tail=[Elementwise("relu")])
    report = _run(network, data, method="product")
    assert any("one bound serves all pairs" in note for note in report.notes)


def test_real_network(shared_data):
    network = lipcert.load(shared_data / "models" / "vnncomp2021" / "mnist-net_256x2.onnx")
    report = certify(
        network, shared_data / "datasets" / "mnist_test.npz", eps=(1e-3, 0.3), method="product", limit=1000
    )
    assert report.clean_accuracy == pytest.approx(0.98, abs=0.02)
    assert report.certified_count["0.001"] > 100
    assert report.certified_count["0.3"] == 0
