"""Requirements are read strictly and judged exactly."""

from __future__ import annotations

import pytest
from sample_documents import make_report

from lipcert.errors import UsageError
from lipcert.robustness.requirements import parse_requirements

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
    report = make_report(1000)
    (requirement,) = parse_requirements([text.format(c=repr(report.certified_accuracy["0.1"]))], EPS)
    result = requirement.judge(report, 12.5)
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
    ],
)
def test_what_cannot_be_meant(text, word):
    with pytest.raises(UsageError, match=word) as caught:
        parse_requirements([text], EPS)
    assert "\n" not in str(caught.value)


def test_a_value_that_was_not_computed_fails():
    report = make_report(100).model_copy(update={"empirical_robust_accuracy": {}})
    for text in ("empirical_robust_accuracy@0.5 >= 0", "bound <= 1e9"):
        (requirement,) = parse_requirements([text], EPS)
        assert requirement.judge(report, None).passed is False
