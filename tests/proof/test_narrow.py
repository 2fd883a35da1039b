"""Wide inputs narrowed: L L' >= W W' against rational elimination, bounds against the truth and the exact engine."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipcert.bounds.engine import bound
from lipcert.network import Builder
from lipcert.network.enclosure import Enclosure
from lipcert.network.operators import Sum
from lipcert.proof import check, narrow
from lipcert.proof.lifted import Block, Lifted, lift
from lipcert.proof.narrow import narrowed
from lipcert.proof.rules.multipliers import Multipliers
from lipcert.proof.subject import subject
from lipcert.testing.build import RELU, dense, matrices, mlp
from lipcert.testing.truth import jacobians_of, lower_bound

SEEDS = st.integers(0, 9999)


def is_semidefinite(matrix: list[list[Fraction]]) -> bool:
    """Exact elimination: no pivot is negative, and a zero pivot has a zero row."""
    a = [row[:] for row in matrix]
    for k in range(len(a)):
        if a[k][k] < 0 or (a[k][k] == 0 and any(a[k][j] for j in range(k, len(a)))):
            return False
        for i in range(k + 1, len(a)):
            if a[k][k] == 0:
                continue
            share = a[i][k] / a[k][k]
            for j in range(k, len(a)):
                a[i][j] -= share * a[k][j]
    return True


def gram(matrix: np.ndarray) -> list[list[Fraction]]:
    exact = [[Fraction(float(x)) for x in row] for row in matrix]
    return [[sum((x * y for x, y in zip(a, b, strict=True)), Fraction(0)) for b in exact] for a in exact]


def covers(factor: np.ndarray, weight: np.ndarray) -> bool:
    pairs = zip(gram(factor), gram(weight), strict=True)
    return is_semidefinite([[x - y for x, y in zip(a, b, strict=True)] for a, b in pairs])


def form(*parts: Enclosure, output: Enclosure | None = None) -> Lifted:
    """One block for each part, which reads the input; the output reads all blocks, and the input too if so said."""
    blocks = tuple(Block(k, np.zeros(w.shape[0]), np.ones(w.shape[0]), {0: w}) for k, w in enumerate(parts, start=1))
    rows = {} if output is None else {0: output}
    rows |= {k: Enclosure.exact(np.ones((1, w.shape[0]))) for k, w in enumerate(parts, start=1)}
    return Lifted(parts[0].shape[1], blocks, rows)


def awkward(seed: int) -> np.ndarray:
    """Rows that are equal, nearly equal, zero, or of very different size."""
    rng = np.random.default_rng(seed)
    m, n = int(rng.integers(1, 5)), int(rng.integers(6, 10))
    rows = rng.normal(size=(m, n)).astype(np.float32).astype(np.float64)
    rows[-1] = rows[0] * (1.0 + 2.0**-30 * rng.integers(0, 2))
    return rows * rng.choice([0.0, 1e-35, 1.0, 1.0, 2.0**40], (m, 1))


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_the_factor_covers_the_rows_in_exact_arithmetic(seed: int) -> None:
    weight = awkward(seed)
    found = narrowed(form(Enclosure.exact(weight)))
    if found.inputs == weight.shape[1]:  # nothing could be shown, or nothing is read
        return
    factor = found.blocks[0].row[0].mid
    assert found.inputs == np.count_nonzero(weight.any(axis=1))
    assert not factor[~weight.any(axis=1)].any()
    assert covers(factor, weight)
    squares = np.square(weight).sum(axis=1)
    assert (np.square(factor).sum(axis=1) <= squares * (1.0 + 1e-9)).all()


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_most_rows_are_narrowed_and_radii_are_covered(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight, radius = rng.normal(size=(4, 8)), 1e-9 * rng.uniform(size=(4, 8))
    weight[1], radius[1] = 0.0, 0.0
    found = narrowed(form(Enclosure(weight, radius)))
    assert found.inputs == 3
    for _ in range(3):
        assert covers(found.blocks[0].row[0].mid, weight + radius * rng.choice([-1.0, 1.0], weight.shape))


def test_all_rows_that_read_the_input_share_one_factor() -> None:
    rng = np.random.default_rng(3)
    first, second, output = rng.normal(size=(2, 9)), rng.normal(size=(3, 9)), rng.normal(size=(1, 9))
    found = narrowed(form(Enclosure(first), Enclosure(second), output=Enclosure(output)))
    assert found.inputs == 6
    factor = np.vstack([found.blocks[0].row[0].mid, found.blocks[1].row[0].mid, found.output[0].mid])
    assert np.array_equal(factor, np.tril(factor))
    assert covers(factor, np.vstack([first, second, output]))


def test_what_is_not_wide_or_not_finite_stays() -> None:
    rng = np.random.default_rng(4)
    for weight in (rng.normal(size=(5, 5)), np.zeros((2, 5)), 1e200 * rng.normal(size=(2, 5)), np.full((2, 5), np.nan)):
        lifted = form(Enclosure(weight))
        assert narrowed(lifted) is lifted


def test_a_factor_that_is_too_small_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    lifted = form(Enclosure(np.random.default_rng(5).normal(size=(3, 9))))
    assert narrowed(lifted).inputs == 3
    honest = np.linalg.cholesky
    for share in (1.0 - 1e-12, 1.0 - 1e-6, 0.5, np.nan):
        monkeypatch.setattr(narrow.np.linalg, "cholesky", lambda a, share=share: share * honest(a))
        assert narrowed(lifted) is lifted
    monkeypatch.setattr(narrow.np.linalg, "cholesky", lambda a: -honest(a))  # covers, but is not the L of the theorem
    assert narrowed(lifted) is lifted


@pytest.mark.parametrize("method", ["eclipse-fast", "lipsdp"])
def test_bounds_of_wide_networks_hold_and_lose_nothing(method: str) -> None:
    pytest.importorskip("flint")
    for seed in range(3):
        weights = matrices(seed, 12, 4, 3, 2)
        network = mlp(weights)
        found = bound(network, method)
        assert found.value >= lower_bound("l2", jacobians_of(network))
        assert check(found.certificate, network).valid
        assert check(found.certificate, network, engine="exact").valid
        triangle = np.linalg.qr(weights[0].T)[1].T  # the same function but for a rotation of the input
        assert found.value <= bound(mlp([triangle, *weights[1:]]), method).value * (1.0 + 1e-8)


def test_an_input_that_the_output_reads_too() -> None:
    builder = Builder((20,))
    inner = builder.add(dense(matrices(7, 3, 2)[0]), builder.add(RELU, builder.add(dense(matrices(8, 20, 3)[0]), 0)))
    builder.add(Sum((1, -1)), builder.add(dense(matrices(9, 20, 2)[0]), 0), inner)
    network = builder.build()
    assert narrowed(lift(subject(network, "output"))).inputs == 5
    found = bound(network, "lipsdp")
    assert found.certificate.rule == Multipliers.id
    assert found.value >= lower_bound("l2", jacobians_of(network))
