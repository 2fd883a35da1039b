"""Alerts in the words of GitHub Actions: annotations of files, and the summary of a step.

Format: docs.github.com, "Workflow commands for GitHub Actions". The runner reads the commands from both streams.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lipcert.errors import UsageError
from lipcert.report.alerts import Alert

SUMMARY = "GITHUB_STEP_SUMMARY"  # variable that names the file to which a step's summary is appended


def annotation(alert: Alert) -> str:
    """Return one command line that annotates a file: an error, or a notice where all is well."""
    kind = "notice" if alert.passed else "error"
    return f"::{kind} file={_property(alert.file)},title={_property(f'lipcert: {alert.rule}')}::{_data(alert.message)}"


def write_summary(markdown: str, environment: Mapping[str, str]) -> bool:
    """Append to the step's summary; return whether there is one.

    Raises:
        UsageError: the file cannot be written.
    """
    name = environment.get(SUMMARY)
    if not name:
        return False
    try:
        with Path(name).open("a", encoding="utf-8") as file:
            file.write(f"{markdown}\n")
    except OSError as error:
        raise UsageError(f"cannot write the step summary '{name}' that {SUMMARY} names: {error.strerror}") from None
    return True


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
