"""Verified operator norms: never below exact lower bounds, and not far above."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from convolutions import ZERO, conv_matrix, exact_square_bound, geometries, transposed_matrix, weights
from exact import is_exactly_psd
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lipcert.bounds.norms import certified_norm, propose_norm
from lipcert.network.enclosure import Enclosure
from lipcert.network.linear import apply_adjoint, apply_linear, dense_matrix
from lipcert.network.operators import AvgPool, Conv, ConvTranspose, Dense, Gather, Reshape, Scale
from lipcert.proof.norms import operator_norm, plan_for, scaled
from lipcert.proof.norms.blocks import blocks_at_most, blocks_flops
from lipcert.proof.norms.dense import dense_at_most
from lipcert.proof.norms.frequency import circles_of, frequency_at_most, grid_factor, symbols
from lipcert.proof.norms.geometry import kernel_of
from lipcert.proof.norms.magnitude import Magnitude
from lipcert.proof.norms.roots import ROOT_ERROR, cos_sin
from lipcert.proof.refusal import Refused

NORMS = ("l1", "l2", "linf")
many = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])


def dense(matrix):
    return Dense(Enclosure.exact(matrix), ZERO)


def conv(weight, *, stride=1, padding=0, dilation=1, groups=1, circular=False):
    kernel = weight if isinstance(weight, Enclosure) else Enclosure.exact(weight)
    rank = len(kernel.shape) - 2
    pads = ((padding, padding),) * rank
    return Conv(kernel, ZERO, (stride,) * rank, pads, (dilation,) * rank, groups, circular)


def shapes(op, *size):
    """Shapes of a Conv on an image."""
    out = tuple(
        (n + a + b - d * (k - 1) - 1) // s + 1
        for n, (a, b), d, k, s in zip(size, op.padding, op.dilation, op.weight.shape[2:], op.stride, strict=True)
    )
    return (op.weight.shape[1] * op.groups, *size), (op.weight.shape[0], *out)


def matrix_of(op, in_shape, out_shape):
    build = transposed_matrix if isinstance(op, ConvTranspose) else conv_matrix
    return build(op, in_shape, out_shape)


# --- convolutions of every geometry ---------------------------------------------------------------------------


def check_all_norms(op, in_shape, out_shape):
    matrix = matrix_of(op, in_shape, out_shape)
    exact = [[Fraction(float(x)) for x in row] for row in np.abs(matrix)]
    sums = {"linf": max(map(sum, exact)), "l1": max(map(sum, zip(*exact, strict=True)))}
    for norm, value in sums.items():
        bound = Fraction(operator_norm(op, in_shape, out_shape, norm))
        assert bound >= value
        if not (isinstance(op, Conv) and op.circular):  # there a kernel may wrap onto itself
            assert bound <= value * (1 + Fraction(1, 10**12)) + Fraction(1, 10**300)
    lower = exact_square_bound(matrix) if matrix.any() else Fraction(0)
    found = certified_norm(op, in_shape, out_shape)
    assert Fraction(found.value) ** 2 >= lower
    assert operator_norm(op, in_shape, out_shape, "l2", found.value) == found.value
    assert Fraction(operator_norm(op, in_shape, out_shape, "l2")) ** 2 >= lower
    if found.technique == "blocks" and lower:
        assert Fraction(found.value) ** 2 <= lower * (1 + Fraction(1, 10**7))


@many
@given(geometries())
def test_every_convolution(case):
    op, in_shape, out_shape = case
    assume(min(out_shape) > 0)
    check_all_norms(op, in_shape, out_shape)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(geometries(transposed=True))
def test_every_transposed_convolution(case):
    op, in_shape, out_shape = case
    assume(min(out_shape) > 0)
    check_all_norms(op, in_shape, out_shape)


@many
@given(geometries())
def test_no_technique_proves_less_than_the_norm(case):
    """Also the techniques that `plan_for` would not choose, and coarse grids."""
    op, in_shape, out_shape = case
    assume(min(out_shape) > 0)
    matrix = conv_matrix(op, in_shape, out_shape)
    assume(matrix.any())
    lower = math.nextafter(math.sqrt(exact_square_bound(matrix)), 0.0) * (1 - 1e-15)
    assert not dense_at_most(matrix, lower)
    assert dense_at_most(matrix, lower * (1 + 1e-9))
    kernel = kernel_of(op, op.weight.mid, in_shape, out_shape)
    size = Magnitude(op, in_shape, out_shape, np.abs(op.weight.mid)).l2()
    assert size >= lower
    if blocks_flops(kernel) < math.inf:
        assert not blocks_at_most(kernel, lower, size)
        assert blocks_at_most(kernel, lower * (1 + 1e-9), size)
    for oversampling in (16, 2):
        circles = circles_of(kernel, oversampling)
        if circles is None:
            continue
        assert not frequency_at_most(kernel, circles, lower)
        largest = max(np.linalg.norm(stack, 2, axis=(-2, -1)).max() for stack in symbols(kernel, circles))
        room = math.prod(grid_factor(circle) for circle in circles)
        assert frequency_at_most(kernel, circles, float(largest / room) * (1 + 1e-9))
        if oversampling == 16 and all(c.circular and c.stride * c.outputs == c.inputs for c in kernel.axes):
            assert largest <= lower * (1 + 1e-9), "block circulant: the largest symbol is the norm"


# --- known cases ------------------------------------------------------------------------------------------------


def test_antisymmetric_kernel_where_power_iteration_from_ones_sees_half():
    """Cycle [-1, 0, 1], circular: all ones is mapped to zero and its neighbours to 1; the norm is 2."""
    op = conv(np.array([[[-1.0, 0.0, 1.0]]]), padding=1, circular=True)
    found = certified_norm(op, *shapes(op, 16))
    assert 2.0 <= found.value <= 2.0 * (1 + 1e-8)
    for claim in (1.0, 1.9, math.nextafter(2.0, 0.0)):
        with pytest.raises(Refused):
            operator_norm(op, *shapes(op, 16), "l2", claim)


def test_groups_take_the_maximum():
    rng = np.random.default_rng(0)
    big, small = rng.standard_normal((4, 3, 3, 3)), rng.standard_normal((4, 3, 3, 3))
    small *= 0.01
    whole = conv(np.concatenate([big, small]), padding=1, groups=2)
    parts = [certified_norm(conv(w, padding=1), *shapes(conv(w, padding=1), 8, 8)).value for w in (big, small)]
    found = certified_norm(whole, *shapes(whole, 8, 8)).value
    assert found == pytest.approx(max(parts), rel=1e-7)
    assert found >= np.linalg.norm(conv_matrix(whole, *shapes(whole, 8, 8)), 2) * (1 - 1e-14)
    assert found > 10 * parts[0] * parts[1]


@pytest.mark.parametrize("taps", [2, 4, 6])
@pytest.mark.parametrize("size", [3, 4, 5])
def test_even_kernels_and_kernels_larger_than_the_image_under_circular_padding(taps, size):
    rng = np.random.default_rng(taps)
    kernel = Enclosure.exact(rng.standard_normal((2, 2, taps, taps)))
    pads = (((taps - 1) // 2, taps // 2),) * 2
    op = Conv(kernel, ZERO, (1, 1), pads, (1, 1), circular=True)
    assert shapes(op, size, size)[1] == (2, size, size)
    true = np.linalg.norm(conv_matrix(op, *shapes(op, size, size)), 2)
    found = certified_norm(op, *shapes(op, size, size))
    assert true * (1 - 1e-14) <= found.value <= true * (1 + 1e-7)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_negative_padding_crops(stride):
    rng = np.random.default_rng(stride)
    op = Conv(weights(rng, 2, 2, 3, 3), ZERO, (stride,) * 2, ((-1, -2), (1, -1)), (1, 1))
    check_all_norms(op, *shapes(op, 9, 8))


def test_cropping_before_wrapping_around_is_bounded_all_the_same():
    rng = np.random.default_rng(14)
    op = Conv(weights(rng, 2, 2, 3), ZERO, (1,), ((-2, 3),), (1,), circular=True)
    found = certified_norm(op, (2, 8), (2, 7))
    assert found.technique == "magnitude"
    assert found.value >= np.linalg.norm(dense_matrix(op, (2, 8), (2, 7)), 2)


def test_patches_cost_one_frequency():
    """Windows that do not overlap: the norm of the flattened kernel, whatever the image."""
    rng = np.random.default_rng(1)
    op = conv(rng.standard_normal((8, 3, 4, 4)), stride=4)
    plan = plan_for(op, *shapes(op, 224, 224), op.weight.mid)
    assert plan.technique == "frequency"
    assert [circle.points for circle in plan.circles] == [1, 1]
    true = np.linalg.norm(op.weight.mid.reshape(8, -1), 2)
    assert true <= certified_norm(op, *shapes(op, 224, 224)).value <= true * (1 + 1e-7)


def test_frequencies_are_within_three_percent_of_the_dense_operator():
    rng = np.random.default_rng(2)
    for size, taps, stride in ((16, 3, 1), (16, 3, 2), (20, 5, 1)):
        op = conv(rng.standard_normal((3, 2, taps, taps)), padding=taps // 2, stride=stride)
        kernel = kernel_of(op, op.weight.mid, *shapes(op, size, size))
        circles = circles_of(kernel, 16)
        true = np.linalg.norm(dense_matrix(op, *shapes(op, size, size)), 2)
        assert frequency_at_most(kernel, circles, 1.03 * true)
        assert not frequency_at_most(kernel, circles, true * (1 - 1e-13))


def test_blocks_on_a_real_size_are_tight():
    rng = np.random.default_rng(3)
    op = conv(np.float32(rng.standard_normal((4, 4, 3, 3))), padding=1)
    in_shape, out_shape = shapes(op, 20, 20)
    true = np.linalg.norm(dense_matrix(op, in_shape, out_shape), 2)
    found = certified_norm(op, in_shape, out_shape)
    assert found.technique == "blocks"
    assert true * (1 - 1e-14) <= found.value <= true * (1 + 1e-7)


def test_many_channels_are_bounded_by_frequencies():
    rng = np.random.default_rng(4)
    op = conv(np.float32(rng.standard_normal((32, 32, 3, 3))), padding=1)
    in_shape, out_shape = shapes(op, 32, 32)
    found = certified_norm(op, in_shape, out_shape)
    assert found.technique == "frequency"
    x = rng.standard_normal((1, *in_shape))
    for _ in range(60):
        y = apply_linear(op, x / np.linalg.norm(x), op.weight.mid, out_shape)
        x = apply_adjoint(op, y, op.weight.mid, in_shape)
    assert np.linalg.norm(y) * (1 - 1e-13) <= found.value <= np.linalg.norm(y) * 1.03


# --- dense matrices -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (30, 4), (40, 60), (300, 200)])
def test_dense_layers_are_within_rounding(shape):
    rng = np.random.default_rng(shape[0])
    matrix = weights(rng, *shape).mid
    found = certified_norm(dense(matrix), (shape[1],), (shape[0],))
    assert found.technique == "dense"
    if matrix.size <= 3000:
        assert Fraction(found.value) ** 2 >= exact_square_bound(matrix)
    assert found.value <= np.linalg.norm(matrix, 2) * (1 + 1e-7)


def test_dense_with_leading_axes_has_the_norm_of_its_matrix():
    op = dense(np.array([[3.0, 4.0]]))
    for shape in ((2,), (5, 2), (2, 3, 2)):
        assert 5.0 <= certified_norm(op, shape, (*shape[:-1], 1)).value <= 5.0 * (1 + 1e-8)
        assert operator_norm(op, shape, (*shape[:-1], 1), "linf") == pytest.approx(7.0, rel=1e-12)


def test_orthogonal_matrices_where_nothing_is_left_of_the_diagonal():
    rng = np.random.default_rng(5)
    q = np.linalg.qr(rng.standard_normal((250, 250)))[0]
    found = certified_norm(dense(q), (250,), (250,))
    assert 1.0 - 1e-15 <= found.value <= 1.0 + 1e-7


def test_a_claim_below_the_norm_by_one_part_in_a_trillion_is_refused():
    rng = np.random.default_rng(6)
    for n in (1, 2, 10, 100):
        matrix = weights(rng, n, n).mid
        claim = math.sqrt(exact_square_bound(matrix)) * (1 - 1e-12)
        with pytest.raises(Refused):
            operator_norm(dense(matrix), (n,), (n,), "l2", claim)


def test_what_is_proved_is_true_to_the_last_bit():
    """Claims within a few roundings of the norm, judged by s^2 I - A A' in rational numbers."""
    rng = np.random.default_rng(13)
    verdicts = []
    for _ in range(150):
        n, m = int(rng.integers(1, 5)), int(rng.integers(1, 5))
        a = weights(rng, n, m).mid
        claim = float(np.linalg.norm(a, 2) * (1 + rng.integers(-20, 120) * 2.0**-53))
        rows = [[Fraction(float(x)) for x in row] for row in a]
        gap = [[-sum(p * q for p, q in zip(r, s, strict=True)) for s in rows] for r in rows]
        for i in range(n):
            gap[i][i] += Fraction(claim) ** 2
        proved = dense_at_most(a, claim)
        verdicts.append((proved, is_exactly_psd(gap)))
    assert (True, False) not in verdicts
    assert {(True, True), (False, True), (False, False)} <= set(verdicts), "the claims are not near enough"


def test_proposals_far_above_and_far_below():
    op = dense(np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert operator_norm(op, (2,), (2,), "l2", 1e6) == 1e6
    assert operator_norm(op, (2,), (2,), "l1", 6.1) == 6.1
    for norm, claim in (("l2", 0.0), ("l2", 5.4), ("l1", 5.9), ("linf", 6.9)):
        with pytest.raises(Refused):
            operator_norm(op, (2,), (2,), norm, claim)
    for claim in (-1.0, math.nan, math.inf):
        with pytest.raises(Refused):
            operator_norm(op, (2,), (2,), "l2", claim)


# --- enclosures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [1e-14, 1e-6, 0.1])
def test_every_matrix_within_the_radii_is_covered(radius):
    rng = np.random.default_rng(7)
    mid = weights(rng, 12, 9).mid
    op = Dense(Enclosure(mid, np.full(mid.shape, radius)), ZERO)
    found = {norm: operator_norm(op, (9,), (12,), norm) for norm in ("l1", "linf")}
    found["l2"] = certified_norm(op, (9,), (12,)).value
    u, _, v = np.linalg.svd(mid)
    worst = mid + radius * np.sign(np.outer(u[:, 0], v[0]))
    assert found["l2"] >= np.linalg.norm(worst, 2) * (1 - 1e-14)
    away = mid + radius * np.where(mid >= 0, 1.0, -1.0)
    assert found["linf"] >= np.abs(away).sum(axis=1).max() * (1 - 1e-14)
    assert found["l1"] >= np.abs(away).sum(axis=0).max() * (1 - 1e-14)


def test_radii_of_a_convolution():
    rng = np.random.default_rng(8)
    mid = rng.standard_normal((3, 2, 3, 3))
    op = conv(Enclosure(mid, np.full(mid.shape, 1e-3)), padding=1)
    found = certified_norm(op, *shapes(op, 7, 7))
    for _ in range(20):
        other = conv(mid + 1e-3 * rng.choice([-1.0, 1.0], mid.shape), padding=1)
        assert found.value >= np.linalg.norm(conv_matrix(other, *shapes(op, 7, 7)), 2) * (1 - 1e-14)
    assert found.value <= 1.02 * np.linalg.norm(conv_matrix(conv(mid, padding=1), *shapes(op, 7, 7)), 2)


# --- scale --------------------------------------------------------------------------------------------------------


def scale_cases():
    rng = np.random.default_rng(9)
    wide = conv(rng.standard_normal((3, 3, 3, 3)), padding=1, circular=True)
    return [
        (dense(rng.standard_normal((20, 30))), (30,), (20,)),
        (conv(rng.standard_normal((3, 2, 3, 3)), padding=1), (2, 8, 8), (3, 8, 8)),
        (wide, *shapes(wide, 8, 8)),
        (Scale(Enclosure.exact(rng.standard_normal(5)), ZERO), (5,), (5,)),
    ]


def rescaled(op, exponent):
    field = "factor" if isinstance(op, Scale) else "weight"
    return replace(op, **{field: Enclosure.exact(np.ldexp(getattr(op, field).mid, exponent))})


@pytest.mark.parametrize("case", range(4))
@pytest.mark.parametrize("exponent", [-1000, -600, -100, -1, 1, 100, 600, 980])
def test_powers_of_two_pass_through_exactly(case, exponent):
    op, in_shape, out_shape = scale_cases()[case]
    other = rescaled(op, exponent)
    for norm in NORMS:
        plain = operator_norm(op, in_shape, out_shape, norm)
        assert operator_norm(other, in_shape, out_shape, norm) == math.ldexp(plain, exponent)
    plain = certified_norm(op, in_shape, out_shape)
    assert certified_norm(other, in_shape, out_shape).value == math.ldexp(plain.value, exponent)


@pytest.mark.parametrize("factor", [1e-30, 1e-5, 1e30])
def test_small_and_large_weights_are_no_less_tight(factor):
    rng = np.random.default_rng(10)
    matrix = rng.standard_normal((15, 15)) * factor
    found = certified_norm(dense(matrix), (15,), (15,)).value
    true = np.linalg.norm(matrix, 2)
    assert true * (1 - 1e-14) <= found <= true * (1 + 1e-7)


def test_weights_of_very_different_size_and_subnormal_ones():
    matrix = np.array([[1.0, 1e-320], [5e-324, 1e-300]])
    assert 1.0 <= certified_norm(dense(matrix), (2,), (2,)).value <= 1.0 + 1e-7
    tiny = np.array([[5e-324, 0.0], [0.0, 1e-323]])
    assert 1e-323 <= certified_norm(dense(tiny), (2,), (2,)).value <= 2e-323
    assert operator_norm(dense(tiny), (2,), (2,), "l1") >= 1e-323


def test_zero_weights_have_norm_zero():
    zero = np.zeros((3, 3))
    assert all(operator_norm(dense(zero), (3,), (3,), norm) == 0.0 for norm in NORMS)
    assert certified_norm(dense(zero), (3,), (3,)).value == 0.0
    op = conv(np.zeros((2, 2, 3, 3)), padding=1)
    assert certified_norm(op, *shapes(op, 5, 5)).value == 0.0


def test_a_norm_too_large_for_float64_is_refused():
    with pytest.raises(Refused):
        operator_norm(dense(np.full((50, 50), 1e308)), (50,), (50,), "l2")
    with pytest.raises(Refused):
        certified_norm(dense(np.full((50, 50), 1e308)), (50,), (50,))


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("norm", NORMS)
def test_what_is_not_a_number_is_refused(bad, norm):
    matrix = np.eye(3)
    matrix[1, 2] = bad
    kernel = np.ones((1, 1, 3))
    kernel[0, 0, 1] = bad
    cases = [
        (Dense(Enclosure(matrix), ZERO), (3,), (3,)),
        (Dense(Enclosure(np.eye(3), np.full((3, 3), np.nan if math.isnan(bad) else np.inf)), ZERO), (3,), (3,)),
        (conv(Enclosure(kernel), padding=1), (1, 5), (1, 5)),
        (Scale(Enclosure(matrix), ZERO), (3, 3), (3, 3)),
        (AvgPool((2,), (2,), ((0, 0),), np.array([2.0, bad])), (1, 4), (1, 2)),
    ]
    for op, in_shape, out_shape in cases:
        with pytest.raises(Refused):
            operator_norm(op, in_shape, out_shape, norm)
        with pytest.raises(Refused):
            operator_norm(op, in_shape, out_shape, norm, 1e9)


def test_flushing_subnormals_is_refused():
    torch = pytest.importorskip("torch")
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormal numbers to zero")
    try:
        with pytest.raises(Refused, match="subnormal"):
            operator_norm(dense(np.eye(2)), (2,), (2,), "l2", 2.0)
    finally:
        torch.set_flush_denormal(False)


# --- operators without a witness ------------------------------------------------------------------------------------


def dense_norms(op, in_shape, out_shape):
    a = dense_matrix(op, in_shape, out_shape)
    return {"l1": np.abs(a).sum(axis=0).max(), "l2": np.linalg.norm(a, 2), "linf": np.abs(a).sum(axis=1).max()}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_average_pooling(data):
    rank = data.draw(st.integers(1, 2))

    def axes(low, high):
        return tuple(data.draw(st.integers(low, high)) for _ in range(rank))

    window, stride, size = axes(1, 4), axes(1, 4), axes(4, 8)
    pads = tuple((data.draw(st.integers(0, k // 2)), data.draw(st.integers(0, k // 2))) for k in window)
    out = tuple((n + a + b - k) // s + 1 for n, (a, b), k, s in zip(size, pads, window, stride, strict=True))
    counts = np.full(out, float(math.prod(window)))
    if data.draw(st.booleans()):
        counts = np.random.default_rng(0).integers(1, 9, out).astype(float)
    op = AvgPool(window, stride, pads, counts)
    for norm, true in dense_norms(op, (2, *size), (2, *out)).items():
        found = operator_norm(op, (2, *size), (2, *out), norm)
        assert true * (1 - 1e-14) <= found <= true * (1.05 if norm == "l2" else 1 + 1e-12)


def test_pooling_whose_windows_do_not_overlap_is_exact():
    op = AvgPool((2, 2), (2, 2), ((0, 0), (0, 0)), np.full((4, 4), 4.0))
    assert 0.5 <= operator_norm(op, (3, 8, 8), (3, 4, 4), "l2") <= 0.5 * (1 + 1e-14)
    assert operator_norm(op, (3, 8, 8), (3, 4, 4), "linf") == 1.0


@settings(deadline=None)
@given(st.lists(st.integers(-1, 5), min_size=1, max_size=12))
def test_index_maps(index):
    op = Gather(np.array(index, dtype=np.int64))
    for norm, true in dense_norms(op, (6,), (len(index),)).items():
        found = operator_norm(op, (6,), (len(index),), norm)
        assert true * (1 - 1e-14) <= found <= true * (1 + 1e-14)
        if true:
            with pytest.raises(Refused):
                operator_norm(op, (6,), (len(index),), norm, true * (1 - 1e-12))


def test_reshape_and_scale():
    factor = Enclosure(np.array([[1.0], [-3.0]]), np.array([[0.0], [0.25]]))
    for norm in NORMS:
        assert operator_norm(Reshape(), (4,), (2, 2), norm) == 1.0
        found = operator_norm(Scale(factor, ZERO), (2, 7), (2, 7), norm)
        assert 3.25 <= found <= math.nextafter(3.25, 4.0)
    assert certified_norm(Reshape(), (4,), (2, 2)).technique == "simple"


# --- parts --------------------------------------------------------------------------------------------------------


def test_magnitude_is_between_the_norm_and_the_usual_closed_forms():
    rng = np.random.default_rng(11)
    a = rng.standard_normal((30, 50))
    found = operator_norm(dense(a), (50,), (30,), "l2")
    absolute = np.linalg.norm(np.abs(a), 2)
    assert absolute * (1 - 1e-14) <= found <= absolute * (1 + 1e-6)
    assert found <= np.linalg.norm(a)
    assert found <= math.sqrt(np.abs(a).sum(axis=0).max() * np.abs(a).sum(axis=1).max())


def exact_cos(turn):
    """cos(2 pi turn) within 10^-40 by a plain Taylor series, with pi to 50 digits."""
    pi = Fraction(314159265358979323846264338327950288419716939937510, 10**50)
    x = 2 * pi * turn
    term, total, k = Fraction(1), Fraction(0), 0
    while abs(term) > Fraction(1, 10**42):
        total += term
        k += 2
        term = -term * x * x / (k * (k - 1))
        term = Fraction(round(term * 10**60), 10**60)
    return total


@pytest.mark.parametrize("points", [1, 2, 3, 4, 7, 8, 12, 30, 97, 256])
def test_cosines_and_sines_are_within_the_stated_error(points):
    for k in range(0, points, max(1, points // 24)):
        turn = Fraction(k, points)
        c, s = cos_sin(turn)
        assert abs(Fraction(c) - exact_cos(turn)) <= Fraction(ROOT_ERROR)
        assert abs(Fraction(s) - exact_cos(turn - Fraction(1, 4))) <= Fraction(ROOT_ERROR)


def test_quarter_turns_are_exact():
    assert [cos_sin(Fraction(k, 4)) for k in range(4)] == [(1, 0), (0, 1), (-1, 0), (0, -1)]


def test_scaled_weights_are_of_order_one_and_keep_what_underflows():
    numbers = scaled(Enclosure.exact(np.array([1e300, 1e-300, 0.0])))
    assert 0.5 <= np.abs(numbers.mid).max() <= 1.0
    assert numbers.rad is not None, "1e-300 is lost beside 1e300, and must be counted"
    assert numbers.rad[1] > 0
    assert numbers.rad[0] == numbers.rad[2] == 0.0
    assert scaled(Enclosure.exact(np.zeros(3))) is None


def test_a_bad_proposal_only_costs_room(monkeypatch):
    op = dense(np.array([[3.0, 0.0], [0.0, 1.0]]))
    monkeypatch.setattr("lipcert.bounds.norms.propose_norm", lambda *_: 2.9999)
    assert 3.0 <= certified_norm(op, (2,), (2,)).value <= 3.0 * 1.001
    monkeypatch.setattr("lipcert.bounds.norms.propose_norm", lambda *_: 1.0)
    fallback = certified_norm(op, (2,), (2,))
    assert fallback.technique == "magnitude"
    assert fallback.value >= 3.0


def test_proposals_are_estimates_from_below():
    rng = np.random.default_rng(12)
    a = rng.standard_normal((600, 700))
    estimate = propose_norm(dense(a), (700,), (600,))
    assert estimate == pytest.approx(np.linalg.norm(a, 2), rel=1e-9)
