"""The matrices of the multiplier rule: products within their error in rational numbers, both sides the same theorem."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rational_evaluation import rational

from lipcert.network.enclosure import gamma
from lipcert.proof.local import forms
from lipcert.proof.local.differences import Rows
from lipcert.proof.local.forms import form, gram_of_stairs, gram_of_windows
from lipcert.proof.local.reach import Noises, Seen, reach


def _stairs(rng, counts, sizes):
    """Rows that end where the noise of later nodes begins, widths of nodes sizes."""
    ends = np.repeat(np.cumsum([0, *sizes])[: len(counts)], counts)
    rows = rng.normal(size=(len(ends), sum(sizes)))
    return np.where(np.arange(rows.shape[1]) < ends[:, None], rows, 0.0)


def _windows(rng, count, size, width):
    """Rows with windows that some share, and dense ones between them."""
    rows = np.zeros((count, size))
    for i in range(count):
        start = int(rng.integers(0, max(1, (size - width) // 3))) * 3
        window = slice(0, size) if i % 5 == 4 else slice(start, start + width)
        rows[i, window] = rng.normal(size=len(range(size)[window]))
    return rows


def _assert_products(found, rows):
    exact, size = rational(rows).dot(rational(rows).T), rational(np.abs(rows)).dot(rational(np.abs(rows)).T)
    assert (abs(rational(found) - exact) <= Fraction(gamma(rows.shape[1] + 6)) * size).all()


@given(st.integers(0, 10**6), st.sampled_from([1, 64]))
@settings(max_examples=8, deadline=None)
def test_products_with_known_zeros_are_products(seed, many):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 12, 3).tolist()
    rows = _stairs(rng, counts, (4, 3, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forms, "_MANY", many)
        _assert_products(gram_of_stairs(rows), rows)
    rows = _windows(rng, int(rng.integers(1, 30)), int(rng.integers(1, 40)), int(rng.integers(1, 4)))
    _assert_products(gram_of_windows(rows), rows)


def test_no_columns_and_numbers_that_are_none():
    assert (gram_of_stairs(np.zeros((3, 0))) == 0).all() and (gram_of_windows(np.zeros((3, 0))) == 0).all()
    rows = np.zeros((2, 20))
    rows[0, 3] = np.nan
    assert np.isnan(gram_of_stairs(rows)[0, 0])
    rows[1, 3] = np.inf
    assert not np.isfinite(gram_of_windows(rows)[:, 1]).any()


def _case(seed, first, inputs):
    """Neurons of two nodes, the first without noise, and functions."""
    rng = np.random.default_rng(seed)
    second, count = 4, 3
    noise = np.zeros((first + second + count, first + second))
    noise[first:, :first] = rng.normal(size=(second + count, first)) / first
    noise[first + second :, first:] = rng.normal(size=(count, second))
    rows = Rows(rng.normal(size=(len(noise), inputs)), noise, rng.uniform(size=len(noise)) * 1e-9)
    radius = rng.uniform(0.05, 0.5, first + second)
    e = radius * 3.0 * np.linalg.norm(rows.inputs, 2) ** 2
    neurons = np.arange(len(noise)) < first + second
    return rows.take(neurons), radius, np.sqrt(radius * e), rows.take(~neurons)


@pytest.mark.parametrize("seed", range(6))
def test_both_sides_prove_the_same(seed, monkeypatch):
    """More neurons without noise than inputs: the side of the inputs is taken, and proves what that of rows does."""
    neurons, radius, scale, functions = _case(seed, 12, 5)
    ball = Seen(0.7, np.zeros(5))
    noises = Noises.of_secants(neurons, radius, scale)
    small = reach(noises, functions, ball)[1]
    assert len(form(neurons, radius, scale, functions).matrix) == 5 + 4 + 3
    monkeypatch.setattr(forms, "_on_inputs", lambda *given: forms._on_rows(*given[:4]))
    assert len(form(neurons, radius, scale, functions).matrix) == 12 + 4 + 3
    large = reach(noises, functions, ball)[1]
    assert np.isfinite(small).all()
    np.testing.assert_allclose(small, large, rtol=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_the_side_of_the_inputs_is_above_every_noise_that_is_allowed(seed):
    neurons, radius, scale, functions = _case(seed, 9, 3)
    found = reach(Noises.of_secants(neurons, radius, scale), functions, Seen(0.75, np.zeros(3)))[1]
    rng = np.random.default_rng(seed)
    assert np.isfinite(found).all()
    for _ in range(15):
        dx = rng.normal(size=3)
        dx = rational(np.floor(dx / np.linalg.norm(dx) * 0.75 * 2.0**30) * 2.0**-30 * (1 - 2.0**-20))
        w = rational(np.zeros(len(radius)))
        for i in range(len(radius)):
            z = rational(neurons.inputs[i]).dot(dx) + rational(neurons.noise[i]).dot(w)
            z += int(rng.choice([-1, 1])) * Fraction(neurons.error[i])
            w[i] = int(rng.choice([-1, 1])) * Fraction(radius[i]) * abs(z)
        moved = abs(rational(functions.inputs).dot(dx) + rational(functions.noise).dot(w)) + rational(functions.error)
        assert (moved <= rational(found)).all()


def test_what_is_outside_the_domain_is_not_proved_on_either_side():
    for first, inputs in ((12, 5), (3, 5)):
        neurons, radius, scale, functions = _case(1, first, inputs)
        small = np.where(np.arange(len(scale)) < first, scale / 100.0, scale)
        assert np.isinf(
            reach(Noises.of_secants(neurons, radius, small), functions, Seen(1.0, np.zeros(inputs)))[1]
        ).all()
