"""Verified positive semidefiniteness against exact rational elimination."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from exact import is_exactly_psd
from hypothesis import given, settings
from hypothesis import strategies as st

from lipcert.proof.psd import is_psd
from lipcert.proof.triangular import gram_lower, solve_lower, times_lower


def nearly_singular(rng, n):
    """A Gram matrix of one vector too few, rounded: its smallest eigenvalue is about +-1e-17."""
    scale = np.exp(rng.uniform(-3, 3, n))
    factor = rng.standard_normal((n, n - 1)) * scale[:, None]
    gram = factor @ factor.T
    return np.tril(gram) + np.tril(gram, -1).T


def cholesky_accepts(matrix) -> bool:
    try:
        return bool(np.isfinite(np.linalg.cholesky(matrix)).all())
    except np.linalg.LinAlgError:
        return False


def test_the_exact_oracle_knows_its_business():
    assert is_exactly_psd(np.array([[1.0, 1.0], [1.0, 1.0]]))
    assert not is_exactly_psd(np.array([[1.0, 1.0], [1.0, np.nextafter(1.0, 0.0)]]))
    assert not is_exactly_psd(np.array([[0.0, 1.0], [1.0, 5.0]]))
    assert is_exactly_psd(np.zeros((3, 3)))


def test_matrices_that_are_not_psd_by_a_hair_are_all_rejected():
    rng = np.random.default_rng(1)
    hair = [nearly_singular(rng, int(rng.integers(2, 8))) for _ in range(900)]
    negative = [a for a in hair if not is_exactly_psd(a)]
    assert len(negative) >= 300
    assert not any(is_psd([a], []) for a in negative)
    assert sum(cholesky_accepts(a) for a in negative) >= 10, "the cases are not hard enough to mean anything"


def test_hundreds_of_matrices_that_plain_cholesky_takes_for_definite_are_all_rejected():
    rng = np.random.default_rng(12)
    sizes = rng.integers(3, 6, 4500)
    hair = [nearly_singular(rng, int(n)) for n in sizes]
    fooled = [a for a in hair if cholesky_accepts(a) and not is_exactly_psd(a)]
    assert len(fooled) >= 300
    assert not any(is_psd([a], []) for a in fooled)


def test_rejected_also_when_cut_into_blocks():
    rng = np.random.default_rng(2)
    for _ in range(150):
        a = nearly_singular(rng, int(rng.integers(4, 8)))
        if not is_exactly_psd(a):
            cut = len(a) // 2
            assert not is_psd([a[:cut, :cut], a[cut:, cut:]], [a[cut:, :cut]])


@pytest.mark.parametrize("n", [1, 2, 5, 60, 300])
def test_comfortably_definite_matrices_are_accepted(n):
    rng = np.random.default_rng(n)
    vectors = np.linalg.qr(rng.standard_normal((n, n)))[0]
    values = np.exp(rng.uniform(np.log(1e-9), 0.0, n))
    a = (vectors * values) @ vectors.T
    assert is_psd([0.5 * (a + a.T)], [])


def test_room_needed_is_near_rounding_level():
    rng = np.random.default_rng(3)
    n = 200
    vectors = np.linalg.qr(rng.standard_normal((n, n)))[0]
    values = np.linspace(0.0, 1.0, n) + 1e-10
    a = (vectors * values) @ vectors.T
    assert is_psd([0.5 * (a + a.T)], [])


def tridiagonal(rng, sizes):
    """Random block-tridiagonal A = L L' + identity, dense and in blocks."""
    n, start = sum(sizes), np.cumsum([0, *sizes])
    lower = np.zeros((n, n))
    for k, size in enumerate(sizes):
        a, b = start[k], start[k + 1]
        lower[a:b, a:b] = np.tril(rng.standard_normal((size, size)))
        if k:
            lower[a:b, start[k - 1] : a] = rng.standard_normal((size, sizes[k - 1]))
    return blocks(lower @ lower.T + np.eye(n), sizes)


def blocks(dense, sizes):
    start = np.cumsum([0, *sizes])
    cut = [slice(a, b) for a, b in pairwise(start)]
    return dense, [dense[s, s] for s in cut], [dense[t, s] for s, t in pairwise(cut)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
def test_blocks_agree_with_the_smallest_eigenvalue(sizes, seed):
    dense, diagonal, below = tridiagonal(np.random.default_rng(seed), sizes)
    low = float(np.linalg.eigvalsh(dense)[0])
    step = 1e-9 * float(np.abs(dense).max())
    inside = [a - (low - step) * np.eye(len(a)) for a in diagonal]
    outside = [a - (low + step) * np.eye(len(a)) for a in diagonal]
    assert is_psd(inside, below)
    assert not is_psd(outside, below)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_the_error_is_subtracted(sizes, seed):
    rng = np.random.default_rng(seed)
    dense, diagonal, below = tridiagonal(rng, sizes)
    low = float(np.linalg.eigvalsh(dense)[0])
    assert is_psd(diagonal, below, low * 0.999)
    assert not is_psd(diagonal, below, low * 1.001)
    rows = [low * rng.uniform(0.1, 0.999, len(a)) for a in diagonal]
    assert is_psd(diagonal, below, rows)
    assert not is_psd(diagonal, below, [np.full(len(a), low * 1.001) for a in diagonal])


def test_an_error_in_one_row_counts():
    a = np.diag([1.0, 1e-3])
    assert is_psd([a], [], [np.array([0.9, 0.9e-3])])
    assert not is_psd([a], [], [np.array([0.0, 1.1e-3])])
    assert not is_psd([a], [], 1.1e-3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(-200, 200))
def test_scaling_by_powers_of_two_changes_nothing(seed, exponent):
    rng = np.random.default_rng(seed)
    sizes = [3, 2, 4]
    dense, _, _ = tridiagonal(rng, sizes)
    low = float(np.linalg.eigvalsh(dense)[0])
    for shift in (low * (1 - 1e-12), low * (1 + 1e-12), low * (1 - 1e-13), low * (1 - 1e-15)):
        moved, _, _ = blocks(dense - shift * np.eye(len(dense)), sizes)
        plain = is_psd(*blocks(moved, sizes)[1:])
        rows = 2.0 ** rng.integers(-60, 60, len(dense))
        scaled = np.ldexp(moved * rows[:, None] * rows, 2 * exponent)
        assert is_psd(*blocks(scaled, sizes)[1:]) == plain


def test_rows_of_very_different_size():
    rng = np.random.default_rng(5)
    a, _, _ = tridiagonal(rng, [6])
    rows = 10.0 ** rng.uniform(-100, 100, 6)
    assert is_psd([a * rows[:, None] * rows], [])


def test_only_the_lower_triangle_is_read():
    a = np.array([[1.0, np.nan], [0.25, 1.0]])
    assert is_psd([a], [])
    assert not is_psd([a.T], [])


def test_a_batch_needs_all_its_matrices():
    good, bad = np.eye(3) * 2.0, np.diag([1.0, 1.0, -1e-3])
    assert is_psd([np.stack([good, good])], [])
    assert not is_psd([np.stack([good, bad])], [])
    links = np.zeros((2, 3, 3))
    assert is_psd([np.stack([good] * 2)] * 2, [links])
    links[1] = 2.1 * np.eye(3)
    assert not is_psd([np.stack([good] * 2)] * 2, [links])
    links[1] = 1.9 * np.eye(3)
    assert is_psd([np.stack([good] * 2)] * 2, [links])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_not_psd(bad):
    eye = np.eye(2)
    spoilt = eye.copy()
    spoilt[1, 0] = bad
    diagonal = np.diag([1.0, bad])
    assert not is_psd([spoilt], [])
    assert not is_psd([diagonal], [])
    assert not is_psd([eye, eye], [np.full((2, 2), bad)])
    assert not is_psd([eye], [], bad)
    assert not is_psd([eye], [], [np.array([0.0, bad])])


def test_zero_negative_and_huge():
    assert not is_psd([np.zeros((2, 2))], [])
    assert not is_psd([-np.eye(2)], [])
    assert not is_psd([np.eye(2)], [], -1.0)
    assert is_psd([np.eye(2) * 1e308], [])
    assert is_psd([np.eye(2) * 5e-324], [])
    assert not is_psd([np.array([[1e308, 1.7e308], [1.7e308, 1e308]])], [])
    assert not is_psd([np.array([[5e-324, 1e308], [1e308, 5e-324]])], [])


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="square"):
        is_psd([np.ones((2, 3))], [])
    with pytest.raises(ValueError, match="square"):
        is_psd([], [])
    with pytest.raises(ValueError, match="below"):
        is_psd([np.eye(2), np.eye(3)], [np.ones((2, 3))])
    with pytest.raises(ValueError, match="below"):
        is_psd([np.eye(2), np.eye(3)], [])


@pytest.mark.parametrize("n", [5, 97, 250])
def test_triangular_systems(n):
    rng = np.random.default_rng(n)
    root = np.tril(rng.standard_normal((n, n))) / n + np.eye(n)
    right = rng.standard_normal((n, 7))
    assert np.allclose(root @ solve_lower(root, right), right, atol=1e-10)
    size = np.abs(root)
    assert (np.abs(times_lower(right.T, root) - right.T @ root.T) <= 1e-13 * (np.abs(right.T) @ size.T)).all()
    assert (np.abs(gram_lower(root) - root @ root.T) <= 1e-13 * (size @ size.T)).all()
    assert np.array_equal(gram_lower(root), gram_lower(root).T)
    stack = np.stack([root, 2 * root])
    assert np.array_equal(gram_lower(stack)[1], 4 * gram_lower(root))
