"""What is shown is never on the wrong side of what is true."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipcert.report import numbers

POSITIVE = st.floats(min_value=0.0, max_value=1e300, allow_nan=False)


def read(text: str) -> Fraction:
    return Fraction(text.replace(",", "").rstrip("\N{NO-BREAK SPACE}%"))


@given(POSITIVE, st.integers(1, 12))
def test_up_is_not_below_and_down_is_not_above(value: float, digits: int) -> None:
    assert read(numbers.down(value, digits)) <= Fraction(value) <= read(numbers.up(value, digits))


@given(POSITIVE, st.integers(2, 12))
def test_rounding_costs_at_most_one_unit_of_the_last_digit(value: float, digits: int) -> None:
    width = read(numbers.up(value, digits)) - read(numbers.down(value, digits))
    assert width <= Fraction(value) / 10 ** (digits - 1)


@given(st.integers(1, 10**7).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_percentages_keep_their_side(pair: tuple[int, int]) -> None:
    part, total = pair
    share = Fraction(100 * part, total)
    assert read(numbers.percent_down(part, total)) <= share <= read(numbers.percent_up(part, total))
    assert share - read(numbers.percent_down(part, total)) < Fraction(1, 100)


@given(st.integers(1, 10**7).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_count_is_recovered_from_its_fraction(pair: tuple[int, int]) -> None:
    part, total = pair
    assert numbers.count_of(part / total, total) == part


@pytest.mark.parametrize(
    ("value", "text"),
    [(24.36635, "24.3664"), (147467.8, "147,468"), (9.73e9, "9.73e9"), (2.0, "2"), (0.0, "0"), (0.1, "0.100001")],
)
def test_up_reads_well(value: float, text: str) -> None:
    assert numbers.up(value) == text


def test_an_exact_percentage_stays_exact() -> None:
    assert numbers.percent_down(57, 100) == "57.00\N{NO-BREAK SPACE}%" == numbers.percent_up(57, 100)
    assert numbers.plain(0.57) == "0.57"
    assert numbers.percent_down(2, 3) == "66.66\N{NO-BREAK SPACE}%"
    assert numbers.percent_up(2, 3) == "66.67\N{NO-BREAK SPACE}%"


def test_missing_numbers_and_infinities() -> None:
    assert numbers.up(None) == "–"
    assert numbers.percent_down(0, 0) == "–"
    with pytest.raises(ValueError, match="inf"):
        numbers.up(float("inf"))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.001, "under 0.01 s"), (0.4321, "0.43 s"), (12.0, "12 s"), (200.2, "3 min 20 s"), (7500.0, "2 h 5 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert numbers.duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, numbers.MISSING),
        (0, "under 1 MiB"),
        (3 * 2**20, "3 MiB"),
        (1536 * 2**20, "1.5 GiB"),
        (999 * 2**20, "1,000 MiB"),
    ],
)
def test_memory_for_people(size: int | None, text: str) -> None:
    assert numbers.memory(size) == text


@pytest.mark.parametrize(
    ("eps", "text"),
    [
        (2 / 255, "0.00784314 (2/255)"),
        (24 / 255, "0.0941176 (24/255)"),
        (0.5, "0.5"),
        (0.2, "0.2"),
        (1.0, "1"),
        (1 / 3, "0.333333 (85/255)"),
        (0.0123456789, "0.0123457"),
    ],
)
def test_radii_of_pictures_show_their_fraction(eps: float, text: str) -> None:
    assert numbers.eps(eps) == text
