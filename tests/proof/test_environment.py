"""The environment guard: accepts IEEE arithmetic, and notices when another library changes it."""

from __future__ import annotations

import time

import numpy as np
import pytest

from lipcert.proof import environment
from lipcert.proof.environment import require_ieee
from lipcert.proof.refusal import Refused


@pytest.fixture
def flush_denormal():
    torch = pytest.importorskip("torch")
    require_ieee()
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormal numbers to zero")
    yield
    torch.set_flush_denormal(False)
    require_ieee()


def test_flush_to_zero_is_refused_although_the_guard_passed_before(flush_denormal):
    with pytest.raises(Refused, match="subnormal"):
        require_ieee()


def test_the_guard_is_cheap():
    require_ieee()
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        require_ieee()
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1e-3


def single_precision(a, b):
    with np.errstate(over="ignore", invalid="ignore"):
        return (a.astype(np.float32) @ b.astype(np.float32)).astype(np.float64)


def shortened(a, b):
    """40-bit inputs, as a float64 product emulated by shorter numbers would use."""

    def cut(x):
        m, e = np.frexp(x)
        return np.ldexp(np.round(m * 2**20) / 2**20, e)

    return cut(a) @ cut(b)


def strassen(a, b):
    """One level of Strassen's algorithm: norm-wise fine, entry by entry not."""
    h = len(a) // 2
    a11, a12, a21, a22 = a[:h, :h], a[:h, h:], a[h:, :h], a[h:, h:]
    b11, b12, b21, b22 = b[:h, :h], b[:h, h:], b[h:, :h], b[h:, h:]
    p = (a11 + a22) @ (b11 + b22)
    q, r = (a21 + a22) @ b11, a11 @ (b12 - b22)
    s, t = a22 @ (b21 - b11), (a11 + a12) @ b22
    u, v = (a21 - a11) @ (b11 + b12), (a12 - a22) @ (b21 + b22)
    return np.block([[p + s - t + v, r + t], [q + s, p - q + r + u]])


@pytest.mark.parametrize("product", [single_precision, shortened, strassen])
def test_products_of_less_than_float64_are_told_from_true_ones(product):
    a, b, expected = environment._probe()
    assert np.array_equal(a @ b, expected)
    assert not np.array_equal(product(a, b), expected)
