"""Outputs that are numbers: intervals and changes against corners, samples of the ball, and exact linear maps."""

from __future__ import annotations

import itertools
import json
from fractions import Fraction

import numpy as np
import pytest
from small_networks import chain, random_chain

import lipcert
from lipcert.cli import app
from lipcert.errors import UsageError
from lipcert.network.evaluate import evaluate
from lipcert.results import RegressionReport
from lipcert.robustness.regression import Units, bound_changes, load_inputs

NORMS = {"l1": 1, "l2": 2, "linf": np.inf}


def _points(rng, count, size, norm):
    """Random points of the unit ball, its corners or axes among them."""
    noise = rng.normal(size=(count, size))
    inside = noise / np.linalg.norm(noise, NORMS[norm], axis=1)[:, None] * rng.random((count, 1)) ** 0.2
    corners = [np.eye(size), -np.eye(size)]
    if norm == "linf":
        corners = [np.array(list(itertools.product([-1.0, 1.0], repeat=size)))]
    return np.concatenate([inside, *corners])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("activation", ["relu", "tanh", "sin"])
def test_no_point_of_the_ball_leaves_the_intervals(norm, activation, tmp_path):
    """sin has no verified local rules: the global bound alone; the others have both."""
    network = random_chain(1, (4, 9, 9, 3), activation)
    rng = np.random.default_rng(0)
    inputs, radii = rng.normal(size=(6, 4)), np.array([1.0, 0.3, 2.0, 0.7])
    scale, offset = np.array([2.0, -0.5, 1.0]), np.array([0.0, 1.0, -3.0])
    units = Units(per_input=tuple(radii), scale=tuple(scale), offset=tuple(offset))
    report = bound_changes(network, inputs, eps=(0.01, 0.3), norm=norm, units=units, folder=tmp_path)
    assert ("alpha-crown" in report.methods) == (activation != "sin") == (not report.notes)
    saved = np.load(tmp_path / "intervals.npz")
    for row, eps in enumerate(saved["eps"]):
        steps = _points(rng, 400, 4, norm) * eps * radii * (1 - 1e-12)
        at = evaluate(network, inputs) * scale + offset
        for n, x in enumerate(inputs):
            values = evaluate(network, x + steps) * scale + offset
            assert (values >= saved["lower"][row, n] - 1e-12).all() and (values <= saved["upper"][row, n] + 1e-12).all()
            assert (np.abs(values - at[n]) <= saved["change"][row, n] + 1e-12).all()
        key = f"{eps:g}"
        for j, change in enumerate(report.changes[key]):
            assert change.largest == saved["change"][row, :, j].max()
            assert change.lower == saved["lower"][row, :, j].min()


@pytest.mark.parametrize("norm", NORMS)
def test_a_linear_map_is_bounded_exactly(norm):
    """|w.d| over the ball is eps ||h w||_*: never below, and above by no more than rounding."""
    weight, radii = np.array([[1.0, -2.0, 0.25], [0.0, 0.0, 0.0]]), (0.5, 2.0, 4.0)
    network = chain((weight, np.array([0.5, 7.0])))
    inputs = np.array([[0.1, -0.3, 0.7]])
    report = bound_changes(network, inputs, eps=(0.25,), norm=norm, units=Units(per_input=radii))
    parts = [Fraction(abs(w)) * Fraction(h) for w, h in zip(weight[0], radii, strict=True)]
    found = Fraction(report.changes["0.25"][0].largest) / Fraction(0.25)
    if norm == "l2":
        exact = float(sum(p * p for p in parts)) ** 0.5
        assert found**2 >= sum(p * p for p in parts)
    else:
        exact = float(max(parts) if norm == "l1" else sum(parts))
        assert found >= (max(parts) if norm == "l1" else sum(parts))
    assert float(found) <= exact * (1 + 1e-9)
    assert report.changes["0.25"][1].largest < 1e-300 and report.changes["0.25"][1].lower >= 7.0 - 1e-12


def test_local_bounds_are_better_and_balls_grow():
    network = random_chain(1, (4, 20, 20, 3))
    inputs = np.random.default_rng(0).normal(size=(5, 4))
    small, large = (bound_changes(network, inputs, eps=(eps,), norm="linf") for eps in (0.01, 0.02))
    for one, two in zip(small.changes["0.01"], large.changes["0.02"], strict=True):
        assert 0 < one.largest < two.largest and one.mean <= one.largest
        assert one.largest < 0.01 * small.bound.bound


@pytest.mark.parametrize(
    ("inputs", "units", "word"),
    [
        (np.zeros((3, 5)), Units(), r"\(N, 4\)"),
        (np.full((3, 4), np.nan), Units(), "finite"),
        (np.zeros((0, 4)), Units(), r"\(N, 4\)"),
        (np.zeros((3, 4)), Units(per_input=(1.0, 2.0)), "2 numbers are given for 4 inputs"),
        (np.zeros((3, 4)), Units(per_input=(0.0,)), "not positive"),
        (np.zeros((3, 4)), Units(scale=(1.0, 2.0)), "2 numbers are given for 3 outputs"),
        (np.zeros((3, 4)), Units(offset=(np.inf,)), "not finite"),
    ],
)
def test_what_does_not_fit_is_refused(inputs, units, word):
    with pytest.raises(UsageError, match=word):
        bound_changes(random_chain(1, (4, 9, 3)), inputs, eps=(0.1,), units=units)


def test_inputs_are_read(tmp_path):
    np.savez(tmp_path / "a.npz", inputs=np.arange(6, dtype=np.uint8).reshape(3, 2))
    np.testing.assert_array_equal(load_inputs(tmp_path / "a.npz", 0.5, 2).images, [[0.0, 0.5], [1.0, 1.5]])
    np.testing.assert_array_equal(load_inputs(tmp_path / "a.npz", limit=1).images, [[0.0, 1.0 / 255.0]])
    np.savez(tmp_path / "real.npz", inputs=np.array([[0.0, 255.0]]))
    np.testing.assert_array_equal(load_inputs(tmp_path / "real.npz").images, [[0.0, 255.0]])
    for scale in (0.0, -1.0):
        with pytest.raises(UsageError, match="scale"):
            load_inputs(tmp_path / "a.npz", scale)
    np.savez(tmp_path / "b.npz", other=np.zeros(3))
    (tmp_path / "c.npz").write_text("no archive")
    for name in ("b.npz", "c.npz", "d.npz"):
        with pytest.raises(UsageError, match=name[0]):
            load_inputs(tmp_path / name)


ACAS = "models/acasxu/ACASXU_run2a_1_1_batch_2000.onnx"


def test_acas_xu_over_a_box(shared_data, tmp_path, capsys, monkeypatch):
    """A box of the inputs, outputs in original units, by the command line."""
    monkeypatch.chdir(tmp_path)
    inputs = np.array([[0.62, 0.1, -0.2, 0.47, -0.47], [0.0, 0.3, 0.3, 0.1, 0.2]])
    radii = np.array([0.02, 0.01, 0.01, 0.03, 0.03])
    np.savez("acas.npz", inputs=inputs)
    given = ("--task", "regression", "--norm", "linf", "--eps", "1", "--per-input", ",".join(map(str, radii)))
    units = ("--output-scale", "373.94992", "--output-offset", "7.518884")
    code = app.run(
        ["certify", str(shared_data / ACAS), "--data", "acas.npz", *given, *units, "--report", "r", "--json"]
    )
    report = RegressionReport.model_validate_json(capsys.readouterr().out)
    assert code == 0 and json.loads((tmp_path / "r" / "report.json").read_text())["samples"] == 2
    network = lipcert.load(shared_data / ACAS)
    steps = _points(np.random.default_rng(0), 2000, 5, "linf") * radii
    saved = np.load(tmp_path / "r" / "intervals.npz")
    for n, x in enumerate(inputs):
        moved = np.abs(evaluate(network, x + steps) - evaluate(network, x[None])) * 373.94992
        assert (moved <= saved["change"][0, n] + 1e-9).all()
        assert (saved["change"][0, n] < 100 * moved.max(axis=0) + 1).all()
    assert [change.output for change in report.changes["1"]] == [0, 1, 2, 3, 4]


def test_what_is_about_classes_does_not_go_with_numbers(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", inputs=np.zeros((2, 4)))
    for extra in (
        ("--level", "numerical"),
        ("--explain",),
        ("--method", "crown"),
        ("--device", "cuda"),
        ("--top-k", "2"),
        ("--figures", "--report", "r"),
    ):
        assert app.run(["certify", "m.onnx", "--data", "a.npz", "--eps", "1", "--task", "regression", *extra]) == 2
        assert "--task regression" in capsys.readouterr().err


def test_what_is_about_numbers_does_not_go_with_classes(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", images=np.zeros((2, 4)), labels=np.zeros(2, dtype=int))
    for name in ("--per-input", "--output-scale", "--output-offset"):
        for extra in ((), ("--explain",)):
            assert app.run(["certify", "m.onnx", "--data", "a.npz", "--eps", "1", name, "2", *extra]) == 2
            assert f"{name} is about outputs that are numbers" in capsys.readouterr().err


# --- records ----------------------------------------------------------------------------------------------------


@pytest.fixture
def small():
    network = random_chain(1, (4, 9, 9, 3))
    return network, np.random.default_rng(0).normal(size=(12, 4))


def _saved(folder):
    with np.load(folder / "intervals.npz") as found:
        return {name: found[name] for name in found.files}


def test_a_run_that_was_cut_off_goes_on(small, tmp_path):
    network, inputs = small
    whole = bound_changes(network, inputs, eps=(0.1, 0.3), folder=tmp_path)
    before, records = _saved(tmp_path), tmp_path / "records.jsonl"
    lines = records.read_bytes().splitlines(keepends=True)
    kept = next(k for k, line in enumerate(lines) if b'"part"' in line) + 1
    records.write_bytes(b"".join(lines[:kept]) + lines[kept][:40])  # a batch, and a torn line
    again = bound_changes(network, inputs, eps=(0.1, 0.3), folder=tmp_path, resume=True)
    assert again.samples == whole.samples == 12 and again.changes.keys() == whole.changes.keys()
    after = _saved(tmp_path)
    np.testing.assert_array_equal(after["index"], np.arange(12))
    np.testing.assert_array_equal(after["lower"][:, :1], before["lower"][:, :1])  # that batch is not done again
    np.testing.assert_allclose(after["change"], before["change"], rtol=0.05)
    with pytest.raises(UsageError, match="another model or settings"):
        bound_changes(network, inputs, eps=(0.1,), folder=tmp_path, resume=True)
    other = inputs + 1e-9  # float64 tells them apart
    with pytest.raises(UsageError, match="sample 0"):
        bound_changes(network, other, eps=(0.1, 0.3), folder=tmp_path, resume=True)


def test_shards_are_a_partition(small, tmp_path, capsys, monkeypatch):
    network, inputs = small
    monkeypatch.chdir(tmp_path)
    for k in (1, 2):
        part = bound_changes(network, inputs, eps=(0.1,), shard=f"{k}/2", folder=tmp_path / f"{k}")
        assert part.samples == 6 and any("shard" in note for note in part.notes)
    assert app.run(["report", "merge", "1", "2", "1", "--out", "whole", "--json"]) == 0
    merged = RegressionReport.model_validate_json(capsys.readouterr().out)
    assert merged.samples == 12 and (tmp_path / "whole" / "report.html").read_text().startswith("<!DOCTYPE html>")
    parts, whole = (_saved(tmp_path / name) for name in ("1", "whole"))
    np.testing.assert_array_equal(whole["upper"][:, ::2], parts["upper"])
    assert merged.changes["0.1"][0].largest == whole["change"][0, :, 0].max()
    assert app.run(["report", "merge", "1", "--out", "half", "--require", "certified_accuracy@0.1 >= 0"]) == 2
    assert "requirements are about classes" in capsys.readouterr().err


def test_what_the_time_limit_leaves_has_the_global_bound(small, tmp_path):
    network, inputs = small
    cut = bound_changes(network, inputs, eps=(0.1,), folder=tmp_path, time_limit=0.0)
    assert cut.untried_count == {"0.1": 12} and any("they have the global bound" in note for note in cut.notes)
    whole = bound_changes(network, inputs, eps=(0.1,), folder=tmp_path, resume=True)
    assert not whole.untried_count
    for one, other in zip(cut.changes["0.1"], whole.changes["0.1"], strict=True):
        assert one.largest >= other.largest > 0 and one.lower <= other.lower <= other.upper <= one.upper


def test_radii_as_wide_as_the_data_are_noticed(small):
    network, said = small[0], []
    inputs = np.random.default_rng(0).uniform(size=(30, 4))
    bound_changes(network, inputs, eps=(0.1,), say=said.append)
    assert not said
    units = Units(per_input=(0.1, 20.0, 0.1, 0.1))
    report = bound_changes(network, inputs, eps=(0.1,), units=units, say=said.append)
    assert len(said) == 1 and "radius of input 1 is 2" in said[0] and said[0] in report.notes
