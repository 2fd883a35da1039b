"""Requirements as JUnit test cases, which every CI system shows."""

from __future__ import annotations

from junitparser import Failure, JUnitXml, TestCase, TestSuite

from lipcert.report import wording
from lipcert.results import Report, RequirementResult


def report_junit(report: Report) -> str:
    """Return a JUnit file with one case per requirement."""
    suite = TestSuite(f"lipcert {wording.file_name(report.model.path)}")
    for requirement in report.requirements:
        suite.add_testcase(_case(report, requirement))
    document = JUnitXml()
    document.add_testsuite(suite)
    return str(document.tostring().decode("utf-8"))


def _case(report: Report, requirement: RequirementResult) -> TestCase:
    case = TestCase(requirement.text, classname=f"lipcert.{report.norm}", time=0)
    if not requirement.passed:
        case.result = [Failure(f"the actual value is {wording.found(requirement)}", "requirement")]
    return case
