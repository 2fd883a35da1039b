"""Alerts as a SARIF 2.1.0 log (OASIS standard, errata 01), which code scanning services show.

A result is something to look at, so what is well has none. A guard that did not run is a result too, and its
invocation is not successful: an empty log never stands for work that was not done.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lipcert.report.alerts import MEANINGS, NO_PROOF, NOT_RUN, Alert, shown
from lipcert.results import FileDigest

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def sarif_log(alerts: Sequence[Alert], files: Sequence[FileDigest] = ()) -> str:
    """Return a log with one result for each alert that did not pass.

    Args:
        alerts: the verdicts.
        files: what was read; named as artifacts with their digests.
    """
    failed = [alert for alert in alerts if not alert.passed]
    rules = sorted({alert.rule for alert in failed})
    unrun = [alert.message for alert in failed if alert.rule == NOT_RUN]
    run: dict[str, Any] = {
        "tool": {
            "driver": {"name": "lipcert", "version": version("lipcert"), "rules": [_rule(name) for name in rules]}
        },
        "invocations": [_invocation(unrun)],
        "columnKind": "unicodeCodePoints",
        "results": [_result(alert, rules.index(alert.rule)) for alert in failed],
    }
    artifacts = [_artifact(file) for file in files]
    if artifacts:
        run["artifacts"] = artifacts
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False) + "\n"


def _rule(name: str) -> Mapping[str, Any]:
    return {
        "id": name,
        "shortDescription": {"text": MEANINGS.get(name, NO_PROOF)},
        "defaultConfiguration": {"level": "error"},
    }


def _invocation(unrun: Sequence[str]) -> Mapping[str, Any]:
    notes = [{"level": "error", "message": {"text": text}} for text in unrun]
    return {"executionSuccessful": not unrun, **({"toolExecutionNotifications": notes} if notes else {})}


def _result(alert: Alert, index: int) -> Mapping[str, Any]:
    place = {"artifactLocation": {"uri": _uri(alert.file)}, "region": {"startLine": 1}}
    # an alarm is the same one in later runs while rule and file are; a requirement is told by its text
    subject = alert.message.partition(" (")[0] if alert.rule in MEANINGS else ""
    same = hashlib.sha256("\n".join((alert.rule, alert.file, subject)).encode()).hexdigest()
    return {
        "ruleId": alert.rule,
        "ruleIndex": index,
        "level": "error",
        "message": {"text": alert.message},
        "locations": [{"physicalLocation": place}],
        "partialFingerprints": {"lipcert/v1": same},
    }


def _artifact(file: FileDigest) -> Mapping[str, Any]:
    hashes = {} if file.sha256 is None else {"hashes": {"sha-256": file.sha256}}
    return {"location": {"uri": _uri(shown(file.path))}, **hashes}


def _uri(path: str) -> str:
    return Path(path).as_uri() if Path(path).is_absolute() else quote(path)
