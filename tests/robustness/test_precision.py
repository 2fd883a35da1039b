"""Deployed passes in other formats, emulated step by step, stay within their error bounds."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import recorded
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import chain, labelled, random_chain

from lipcert.errors import InconclusiveError, UsageError
from lipcert.network.evaluate import evaluate
from lipcert.network.operators import Dense, Elementwise, Reshape
from lipcert.robustness.certifier import certify
from lipcert.robustness.margins import l2_dilation
from lipcert.robustness.passes.execution import Execution
from lipcert.robustness.passes.forward import ForwardPass, l2_steps
from lipcert.robustness.passes.precision import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, PRECISIONS, TF32, compound

SHORT = (FLOAT16, BFLOAT16, TF32)


def rounded(values: np.ndarray, bits: int, cut: bool = False) -> np.ndarray:
    """Round to so many significant bits, to nearest or towards zero."""
    mantissa, exponent = np.frexp(values)
    whole = np.trunc(mantissa * 2.0**bits) if cut else np.round(mantissa * 2.0**bits)
    return np.ldexp(whole, exponent - bits)


def stored(values: np.ndarray, name: str) -> np.ndarray:
    """Round to a format as a deployed pass stores it."""
    if name == "float16":
        return np.asarray(values).astype(np.float16).astype(np.float64)
    return rounded(values, {"bfloat16": 8}.get(name, 24))


def product(weight: np.ndarray, h: np.ndarray, bias: np.ndarray, name: str, rng: np.random.Generator) -> np.ndarray:
    """Return W h + b of one sample: exact products, added one by one in float32 in some order, rounded or cut."""
    cut = bool(rng.integers(2))
    if name == "tf32":
        weight, h = rounded(weight, 11, cut), rounded(h, 11, cut)
    terms = weight * h  # exact in float64: at most 24 bits each
    total = np.zeros(len(weight))
    for i in rng.permutation(terms.shape[1]):
        total = rounded(total + terms[:, i], 24, cut)
    return rounded(total + bias, 24, cut)


def deployed_pass(network, x: np.ndarray, name: str, rng: np.random.Generator) -> np.ndarray:
    h = stored(x.astype(np.float64).ravel(), name)
    for node in network.nodes[1:]:
        match node.op:
            case Dense():
                weight, bias = stored(node.op.weight.mid, name), stored(node.op.bias.mid, name)
                h = stored(product(weight, h, bias, name, rng), name)
            case Elementwise(name="relu"):
                h = np.maximum(h, 0.0)
            case Elementwise(name="tanh"):
                h = stored(np.tanh(h), name)
            case Reshape():
                pass
            case _:
                raise AssertionError(node.op)
    return h


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(SHORT), st.sampled_from(["relu", "tanh"]), st.floats(0.0, 2.0))
def test_emulated_passes_stay_within_their_error_in_the_whole_ball(seed, precision, activation, radius):
    network = random_chain(seed, (6, 14, 12, 4), activation)
    rng = np.random.default_rng(seed)
    image = (rng.normal(size=(1, 6)) * rng.choice([0.1, 1.0, 10.0])).astype(np.float32)
    deployed = ForwardPass(network, l2_steps(network), FLOAT64, precision)(image).deployed
    shift = rng.normal(size=(1, 6))
    moved = (image + shift * radius / np.linalg.norm(shift)).astype(np.float32)
    real = float(np.linalg.norm(moved.astype(float) - image))
    assert real <= deployed.reach[0]
    distance = np.linalg.norm(deployed_pass(network, moved, precision.name, rng) - evaluate(network, moved)[0])
    assert distance <= (deployed.base[0] + deployed.growth * real) * (1 + 1e-12) + 1e-12


@pytest.mark.parametrize(("precision", "loose"), [(TF32, 0.03), (FLOAT16, 0.03), (BFLOAT16, 0.2), (FLOAT32, 1e-5)])
def test_the_error_is_not_vacuous(precision, loose):
    network = random_chain(1)
    image = np.ones((1, 6), np.float32)
    size = np.linalg.norm(image)
    errors = [ForwardPass(network, l2_steps(network), FLOAT64, p)(image).deployed.base[0] for p in (FLOAT64, precision)]
    assert errors[0] < 1e-13 < errors[1] < loose * size


def test_shorter_formats_have_larger_errors():
    network, image = random_chain(2), np.ones((1, 6), np.float32)
    errors = [
        ForwardPass(network, l2_steps(network), FLOAT64, p)(image).deployed.base[0]
        for p in (FLOAT64, FLOAT32, FLOAT16, TF32, BFLOAT16)
    ]
    assert errors == sorted(errors)


def test_the_cut_of_tf32_is_counted():
    """1 + 2^-11 loses its last bit: a sum of such terms that cancels otherwise shows nothing else."""
    ones = np.ones((1, 64))
    network = chain((ones, np.zeros(1)))
    image = np.full((1, 64), 1.0 + 2.0**-11 + 2.0**-20, np.float32)
    error = ForwardPass(network, l2_steps(network), FLOAT64, TF32)(image).deployed.base[0]
    lost = 64 * (2.0**-11 + 2.0**-20)
    assert error >= lost
    assert ForwardPass(network, l2_steps(network), FLOAT64, FLOAT32)(image).deployed.base[0] < lost


@pytest.mark.parametrize("size", [300.0, 3000.0])
def test_overflow_of_float16_is_excluded(size):
    """Entries up to 1e5 overflow float16 (65504) and not float32."""
    network = chain((np.full((2, 4), 32.0), np.zeros(2)))
    image = np.full((1, 4), size, np.float32)
    half, full = (ForwardPass(network, l2_steps(network), FLOAT64, p)(image).deployed for p in (FLOAT16, FLOAT32))
    assert half.reach[0] == 0.0
    assert full.reach[0] > 1e6


def test_inputs_beyond_float16_have_no_reach():
    network = chain((np.full((2, 4), 2.0**-20), np.zeros(2)))
    images = np.array([[1.0, 0, 0, 0], [1e5, 0, 0, 0]], np.float32)
    deployed = ForwardPass(network, l2_steps(network), FLOAT64, FLOAT16)(images).deployed
    assert deployed.reach[0] > 1.0
    assert deployed.reach[1] == 0.0


@pytest.mark.parametrize("precision", [FLOAT32, FLOAT16, BFLOAT16, TF32])
def test_what_a_format_holds(precision):
    bits = -int(np.log2(precision.unit))
    assert precision.holds(np.array([0.0, 1.0, -1.5, 1.0 + 2.0 ** (1 - bits)]))
    assert not precision.holds(np.array([1.0, 1.0 + 2.0**-bits]))
    held = stored(np.random.default_rng(0).normal(size=100), precision.name)
    assert precision.holds(held)


def test_compound_errors():
    exact = (1 + Fraction(2**-10)) ** 2 * (1 + Fraction(0.25)) - 1
    assert exact <= Fraction(compound(2.0**-10, 2.0**-10, 0.25)) <= exact * (1 + Fraction(2**-39))
    assert compound(0.5, 0.5) == np.inf


def test_certification_with_an_arithmetic():
    network = random_chain(3)
    data = labelled(network, 20)
    counts = {}
    for arithmetic in (None, *PRECISIONS):
        report = certify(
            network, data, eps=[0.02], level="verified-exec", method="global", lower_seconds=0.0, arithmetic=arithmetic
        )
        assert report.level == "verified-exec"
        assert any(f"the deployed pass is {arithmetic or 'float32'}" in note for note in report.notes)
        counts[arithmetic] = report.certified_count["0.02"]
    assert counts[None] == counts["float32"]
    assert counts["float64"] >= counts["float32"] >= counts["tf32"] >= counts["bfloat16"]


def test_an_arithmetic_without_its_level_and_an_unknown_one():
    network = random_chain(4)
    data = labelled(network, 4)
    with pytest.raises(UsageError, match="level verified-exec"):
        certify(network, data, eps=[0.1], arithmetic="tf32")
    with pytest.raises(UsageError, match="one of float32"):
        certify(network, data, eps=[0.1], level="verified-exec", arithmetic="float8")


def test_a_float16_model_needs_its_arithmetic_named():
    network = replace(random_chain(5), dtype="float16")
    data = labelled(network, 4)
    with pytest.raises(InconclusiveError, match="--arithmetic"):
        certify(network, data, eps=[0.1], level="verified-exec", method="global")


# --- local methods ----------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(SHORT), st.sampled_from(["l1", "l2", "linf"]))
def test_no_margin_on_a_ball_loses_more_than_is_taken_off(seed, precision, norm):
    network = random_chain(seed, (6, 14, 12, 4))
    rng = np.random.default_rng(seed)
    image, eps = rng.normal(size=(1, 6)).astype(np.float32), np.array([0.25])
    run = ForwardPass(network, l2_steps(network), FLOAT64, precision)
    loss = Execution(run, l2_dilation(6, norm)).loss(image, eps)[0]
    corner = rng.choice([-1.0, 1.0], size=(1, 6))
    step = corner if norm == "linf" else corner / np.linalg.norm(corner, 1 if norm == "l1" else 2)
    moved = (image + 0.999 * eps[0] * step).astype(np.float32)
    real, got = evaluate(network, moved)[0], deployed_pass(network, moved, precision.name, rng)
    margins = (real[:, None] - real) - (got[:, None] - got)
    assert np.abs(margins).max() <= loss * (1 + 1e-12)


def test_local_methods_certify_the_deployed_pass(tmp_path):
    """The emulated pass keeps the class wherever a local method says so; the arithmetic costs certified samples."""
    network = random_chain(3, (6, 12, 12, 4))
    images, labels = labelled(network, 40)
    quick, counts, rng = {"eps": (0.05, 0.15), "lower_seconds": 0.0}, {}, np.random.default_rng(0)
    for arithmetic in (None, "float16", "float32"):
        level = "verified" if arithmetic is None else "verified-exec"
        folder = tmp_path / str(arithmetic)
        folder.mkdir()
        settings = quick | {"level": level, "arithmetic": arithmetic, "folder": folder}
        report = certify(network, (images, labels), method="crown", **settings)
        counts[arithmetic] = sum(report.certified_count.values())
        won = [row for row in recorded.rows(folder).values() if "crown" in row["stage"]]
        assert won and {level} == {row["level"][0] for row in won if row["status"][0] == "certified"}
        for row in won if arithmetic == "float16" else ():
            eps = max(e for e, status in zip(quick["eps"], row["status"], strict=True) if status == "certified")
            for _ in range(20):
                step = rng.normal(size=(1, 6))
                moved = images[[row["index"]]] + 0.999 * eps * step / np.linalg.norm(step)
                assert deployed_pass(network, moved.astype(np.float32), arithmetic, rng).argmax() == row["label"]
    assert counts["float16"] <= counts["float32"] <= counts[None]
    alone = certify(network, (images, labels), method="product", level="verified-exec", **quick)
    assert counts["float32"] > sum(alone.certified_count.values())


def test_nothing_is_certified_where_the_deployed_pass_may_overflow():
    network = chain((np.full((2, 4), [[32.0], [-32.0]]), np.zeros(2)))
    images, labels = np.full((3, 4), 300.0, np.float32), np.zeros(3, dtype=np.int64)
    for arithmetic, certified in (("float32", 3), ("float16", 0)):
        report = certify(
            network, (images, labels), eps=[0.5], method="crown", level="verified-exec", arithmetic=arithmetic
        )
        assert report.certified_count["0.5"] == certified
