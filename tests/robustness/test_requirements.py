"""Requirements are read strictly and judged exactly."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_documents import make_report

from lipcert.errors import UsageError
from lipcert.robustness.requirements import OPERATORS, measured, parse_requirements

EPS = (0.1, 0.3, 0.5)


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        ("certified_accuracy@0.1 >= {c}", True),
        ("certified_accuracy@0.1 > {c}", False),
        ("certified_accuracy@0.1 == {c}", True),
        ("certified_accuracy@0.1<={c}", True),
        ("certified_accuracy @ 0.1 < {c}", False),
        ("certified_accuracy@1e-1 >= 0", True),
        ("certified_accuracy@1/10 >= 0", True),
        ("  clean_accuracy>0.99 ", False),
        ("clean_accuracy >= 9/10", True),
        ("empirical_robust_accuracy@0.5 >= 1.0", False),
        ("mean_certified_radius > 0", True),
        ("bound <= 12.5", True),
        ("bound < 12.5", False),
    ],
)
def test_verdicts(text, passed):
    report = make_report(1000).model_copy(update={"output_bound": 12.5})
    (requirement,) = parse_requirements([text.format(c=repr(report.certified_accuracy["0.1"]))], EPS)
    result = requirement.judge(measured(report, requirement))
    assert result.passed is passed
    assert result.actual is not None


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("certified_acuracy@0.5 >= 0.6", "did you mean 'certified_accuracy'"),
        ("speed > 5", "there are certified_accuracy"),
        ("certified_accuracy@0.4 >= 0.6", "eps 0.4, which is not computed"),
        ("certified_accuracy >= 0.6", "needs a radius"),
        ("clean_accuracy@0.5 >= 0.6", "does not depend on eps"),
        ("certified_accuracy@0.5 => 0.6", "cannot be read"),
        ("certified_accuracy@0.5 >= ", "cannot be read"),
        ("certified_accuracy@0.5 >= x", "not a number"),
        ("certified_accuracy@0.5 >= nan", "not a number"),
        ("certified_accuracy@0.5 >= 1/0", "not a number"),
        ("certified_accuracy@x >= 0.5", "not a number"),
        ("certified_accuracy@0.5 >= 0.6 and clean_accuracy > 0", "cannot be read"),
        ("", "cannot be read"),
        ("bound <= 1_0", "not a number"),
        ("bound <= 1e9999999999", "not a number"),
        ("bound <= 1e999", "not a number"),
        ("bound <= 1/2/3", "not a number"),
        ("bound <= 1 2", "cannot be read"),
        ("bound <= baseline * 1.05", "cannot be read"),
        ("bound <= baseline 0.1", "cannot be read"),
        ("bound <= baseline -", "cannot be read"),
        ("bound <= baseline - - 1", "cannot be read"),
        ("bound <= baselin", "not a number"),
        ("bound <= x * baseline", "not a number"),
        ("bound <= baseline + nan", "not a number"),
        ("bound <= 0 * baseline", "positive factor"),
        ("bound <= -1 * baseline", "positive factor"),
    ],
)
def test_what_cannot_be_meant(text, word):
    with pytest.raises(UsageError, match=word) as caught:
        parse_requirements([text], EPS)
    assert "\n" not in str(caught.value)


def test_a_value_that_was_not_computed_fails():
    report = make_report(100).model_copy(update={"attacked_count": {}})
    for text in ("empirical_robust_accuracy@0.5 >= 0", "bound <= 1e9"):
        (requirement,) = parse_requirements([text], EPS)
        result = requirement.judge(measured(report, requirement))
        assert (result.passed, result.actual) == (False, None)


def test_without_radii_only_the_bound_can_be_meant():
    assert parse_requirements(["bound <= 8/255"], ())[0].threshold() == 8 / 255
    for text in ("clean_accuracy > 0", "certified_accuracy@0.1 > 0"):
        with pytest.raises(UsageError, match="there is only bound"):
            parse_requirements([text], ())


@pytest.mark.parametrize(
    ("right", "factor", "offset"),
    [
        ("baseline", "1", "0"),
        ("baseline - 0.01", "1", "-0.01"),
        ("baseline-0.01", "1", "-0.01"),
        ("baseline + 1e-3", "1", "0.001"),
        ("1.05 * baseline", "1.05", "0"),
        ("1.05*baseline+8/255", "1.05", "8/255"),
        ("1/2 * baseline - .5", "1/2", "-0.5"),
        ("0.25", "0", "0.25"),
    ],
)
def test_right_sides(right, factor, offset):
    (requirement,) = parse_requirements([f"bound <= {right}"], ())
    assert (requirement.factor, requirement.offset) == (Fraction(factor), Fraction(offset))
    assert requirement.needs_baseline == ("baseline" in right)


def test_a_hundredth_less_is_met_and_one_sample_fewer_is_not():
    """In floating point 0.07 - 0.01 is above 0.06."""
    assert 0.07 - 0.01 > 0.06
    (requirement,) = parse_requirements(["clean_accuracy >= baseline - 0.01"], EPS)
    held = requirement.held_to(Fraction(7, 100))
    result = held.judge(Fraction(6, 100))
    assert (result.passed, result.threshold, result.baseline) == (True, 0.06, 0.07)
    assert not held.judge(Fraction(599, 10000)).passed


@given(
    st.sampled_from(sorted(OPERATORS)),
    st.integers(0, 1000),
    st.integers(0, 1000),
    st.integers(0, 100),
)
def test_counts_are_compared_as_exact_fractions_are(operator, now, before, percent):
    """Counts of up to 1000 samples and hundredths are apart by more than a rounding error, or equal."""
    (requirement,) = parse_requirements([f"clean_accuracy {operator} baseline - 0.{percent:03d}"], EPS)
    actual, baseline = Fraction(now, 1000), Fraction(before, 1000)
    expected = OPERATORS[operator](actual, baseline - Fraction(percent, 1000))
    assert requirement.held_to(baseline).judge(actual).passed is expected


def test_a_baseline_cannot_be_forgotten():
    (requirement,) = parse_requirements(["bound <= baseline"], ())
    with pytest.raises(ValueError, match="without its baseline"):
        requirement.judge(Fraction(1))


def test_a_threshold_that_overflows_is_refused():
    (requirement,) = parse_requirements(["bound <= 1e308 * baseline"], ())
    with pytest.raises(UsageError, match="too large"):
        requirement.held_to(Fraction(10))
