"""The pytest plugin: tests that guard a model.

A test that asks for the fixture ``lipcert``, or has the marker of that name, is a guard. A guard that did not run
never looks like success: one that is skipped, expected to fail or checks nothing fails, one that was deselected fails
the session, and so does one that is named in the ini option ``lipcert_guards`` and did not pass. The option
``--lipcert-partial`` says that a run leaves guards out on purpose. Nothing but pytest is imported before a guard runs.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from lipcert.pytest_guard import Guard

NAME = "lipcert"
PATHS = ("model", "certificate", "baseline")  # ini options lipcert_model, ..., and arguments of the marker
_GUARD = pytest.StashKey["Guard"]()


@pytest.fixture(name=NAME)
def guard(request: pytest.FixtureRequest) -> Guard:
    """Check certificates and requirements; a test that asks for this is a guard and has to use it."""
    settings = {name: request.config.getini(f"{NAME}_{name}") or None for name in PATHS}
    marker = request.node.get_closest_marker(NAME)
    if marker is not None:
        unknown = sorted(set(marker.kwargs) - set(PATHS))
        if marker.args or unknown:
            pytest.fail(
                f"lipcert: the marker takes {', '.join(PATHS)} by name, not {unknown or marker.args}", pytrace=False
            )
        settings |= marker.kwargs
    from lipcert.pytest_guard import Guard

    found = Guard(request.config.rootpath, settings)
    request.node.stash[_GUARD] = found
    return found


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the ini options and the flag."""
    for name in PATHS:
        parser.addini(f"{NAME}_{name}", f"{name} of guards that name none, relative to the root folder", default="")
    parser.addini(f"{NAME}_guards", "node ids of guards that have to run and pass in every session", type="linelist")
    help_text = "this run leaves lipcert guards out on purpose: those that do not run do not fail it"
    parser.getgroup(NAME).addoption("--lipcert-partial", action="store_true", help=help_text)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker and begin to keep watch."""
    line = f"{NAME}(model=..., certificate=..., baseline=...): a guard of a model; failing where it does not run"
    config.addinivalue_line("markers", line)
    config.pluginmanager.register(Watch(config), f"{NAME}-watch")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark tests that ask for the fixture, so that `-m lipcert` selects them."""
    if NAME in getattr(item, "fixturenames", ()) and item.get_closest_marker(NAME) is None:
        item.add_marker(NAME)


class Watch:
    """Keeps watch over the guards of one session; with xdist there is one in each process, and the first reports."""

    def __init__(self, config: pytest.Config) -> None:
        self.partial = bool(config.getoption("--lipcert-partial")) or bool(config.getoption("collectonly"))
        self.named: list[str] = config.getini(f"{NAME}_guards")
        self.worker = getattr(config, "workeroutput", None)
        self.deselected: set[str] = set()
        self.passed: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Fail guards that were skipped, that are expected to fail, or that checked nothing."""
        report = yield
        if item.get_closest_marker(NAME) is None or self.partial:
            return report
        found = item.stash.get(_GUARD, None)
        if report.skipped:
            why = report.longrepr[2] if isinstance(report.longrepr, tuple) else getattr(report, "wasxfail", "")
            _fail(report, f"a lipcert guard did not run or is expected to fail: {why or 'no reason given'}")
        elif report.passed and report.when == "call" and (found is None or not found.checks):
            _fail(report, "a lipcert guard checked nothing: call lipcert.check(...) or lipcert.certify(...) in it")
        return report

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Remember guards that are left out."""
        self.deselected |= {item.nodeid for item in items if item.get_closest_marker(NAME) is not None}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember what has passed; with xdist the reports of all processes arrive in the first."""
        if report.when == "call" and report.passed:
            self.passed.add(report.nodeid)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what a process of xdist left out."""
        self.deselected |= set(getattr(node, "workeroutput", {}).get(NAME, ()))

    def unrun(self) -> list[str]:
        """Return the guards that should have run and passed, and did not."""
        absent = {name for name in self.named if not any(_is_part(test, name) for test in self.passed)}
        return [] if self.partial else sorted(self.deselected - self.passed | absent)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the session where a guard did not run."""
        if self.worker is not None:
            self.worker[NAME] = sorted(self.deselected)
        elif self.unrun() and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say which guards did not run."""
        missing = self.unrun()
        if missing:
            terminalreporter.section("lipcert guards that did not run and pass", red=True, bold=True)
            for name in missing:
                terminalreporter.line(name)
            terminalreporter.line("run them too, or say with --lipcert-partial that this run is without them")


def _fail(report: pytest.TestReport, text: str) -> None:
    report.outcome, report.longrepr = "failed", text
    if hasattr(report, "wasxfail"):
        del report.wasxfail


def _is_part(test: str, name: str) -> bool:
    """Whether a node id is that of a test, or of one in a file or class, or one of its parametrisations."""
    return test == name or test.startswith((f"{name}::", f"{name}["))
