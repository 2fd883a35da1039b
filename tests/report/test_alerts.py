"""Verdicts for machines: SARIF, GitHub annotations and summaries, in-toto statements."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_documents import make_check, make_report

from lipcert.errors import UsageError
from lipcert.report.alerts import Alert, check_alerts, failure_alert, report_alerts
from lipcert.report.github import annotation, write_summary
from lipcert.report.intoto import check_statement
from lipcert.report.json import published_schema
from lipcert.report.markdown import check_markdown, failure_markdown
from lipcert.report.sarif import SCHEMA, sarif_log
from lipcert.results import CheckResult, FileDigest, RequirementResult

MET = RequirementResult(text="bound <= 40", actual=31.5, passed=True, threshold=40.0)
UNMET = RequirementResult(text="bound <= baseline", actual=31.5, passed=False, threshold=30.0, baseline=30.0)
FILES = (FileDigest(path="a/m x.lipcert", sha256="1f" * 32), FileDigest(path="a/m x.onnx", sha256="2e" * 32))


def check(*, valid: bool = True, requirements: tuple[RequirementResult, ...] = ()) -> CheckResult:
    code = "proved" if valid else "other-weights"
    files = {"certificate": FILES[0], "model": FILES[1]}
    update = {"code": code, "quantity": "output" if valid else None, "requirements": requirements, **files}
    return make_check(valid=valid).model_copy(update=update)


LOGS = {
    "valid": sarif_log(check_alerts(check()), FILES),
    "invalid": sarif_log(check_alerts(check(valid=False)), FILES),
    "unmet": sarif_log(check_alerts(check(requirements=(MET, UNMET))), FILES),
    "report": sarif_log(report_alerts(make_report(500, threshold=0.999))),
    "not-run": sarif_log([failure_alert("cannot read the certificate 'x'", "m.onnx")]),
    "absolute": sarif_log([Alert("other-weights", False, "it changed", "/models/a b#c?d.onnx")]),
    "nothing": sarif_log([]),
}


def closed(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    properties = {**required, **(optional or {})}
    return {"type": "object", "properties": properties, "required": [*required], "additionalProperties": False}


def array(items: dict[str, Any], least: int = 0) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": least, "uniqueItems": True}


TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
MESSAGE = closed({"text": TEXT})
URI = {"type": "string", "pattern": r"^([A-Za-z0-9._~/%!$&'()*+,;=@-]|file:///)+$"}
PLACE = closed({"artifactLocation": closed({"uri": URI}), "region": closed({"startLine": {"const": 1}})})
# SARIF 2.1.0 (OASIS), as far as it is written here: sections 3.13 log, 3.14 run, 3.18 to 3.20 tool and
# invocation, 3.24 artifact, 3.27 result, 3.49 rule, 3.58 notification; stricter, as nothing else is allowed.
WRITTEN = closed(
    {
        "$schema": {"const": SCHEMA},
        "version": {"const": "2.1.0"},
        "runs": array(
            closed(
                {
                    "tool": closed(
                        {
                            "driver": closed(
                                {
                                    "name": {"const": "lipcert"},
                                    "version": TEXT,
                                    "rules": array(
                                        closed(
                                            {
                                                "id": TEXT,
                                                "shortDescription": MESSAGE,
                                                "defaultConfiguration": closed({"level": {"const": "error"}}),
                                            }
                                        )
                                    ),
                                }
                            )
                        }
                    ),
                    "invocations": array(
                        closed(
                            {"executionSuccessful": {"type": "boolean"}},
                            {
                                "toolExecutionNotifications": array(
                                    closed({"level": {"const": "error"}, "message": MESSAGE}), 1
                                )
                            },
                        ),
                        1,
                    ),
                    "columnKind": {"const": "unicodeCodePoints"},
                    "results": array(
                        closed(
                            {
                                "ruleId": TEXT,
                                "ruleIndex": {"type": "integer", "minimum": 0},
                                "level": {"const": "error"},
                                "message": MESSAGE,
                                "locations": array(closed({"physicalLocation": PLACE}), 1),
                                "partialFingerprints": closed({"lipcert/v1": {"pattern": "^[0-9a-f]{64}$"}}),
                            }
                        )
                    ),
                },
                {
                    "artifacts": array(
                        closed(
                            {"location": closed({"uri": URI})},
                            {"hashes": closed({"sha-256": {"pattern": "^[0-9a-f]{64}$"}})},
                        ),
                        1,
                    )
                },
            ),
            1,
        ),
    }
)


@pytest.mark.parametrize("log", LOGS.values(), ids=LOGS.keys())
def test_logs_have_the_form_of_sarif(log: str) -> None:
    document = json.loads(log)
    jsonschema.validate(document, WRITTEN, cls=jsonschema.Draft202012Validator)
    run = document["runs"][0]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert all(rules[result["ruleIndex"]] == result["ruleId"] for result in run["results"])


@pytest.mark.parametrize("log", LOGS.values(), ids=LOGS.keys())
def test_logs_obey_the_schema_of_oasis(log: str) -> None:
    """The schema is not ours to copy: download it from the address in `SCHEMA` and name the file."""
    path = os.environ.get("LIPCERT_SARIF_SCHEMA")
    if path is None:
        pytest.skip("LIPCERT_SARIF_SCHEMA does not name a copy of the OASIS schema")
    schema = json.loads(Path(path).read_text(encoding="utf-8"))
    assert schema["id"] == SCHEMA
    checker = jsonschema.Draft4Validator.FORMAT_CHECKER
    jsonschema.Draft4Validator(schema, format_checker=checker).validate(json.loads(log))


def results(name: str) -> list[tuple[str, str]]:
    return [(result["ruleId"], result["message"]["text"]) for result in json.loads(LOGS[name])["runs"][0]["results"]]


def test_what_is_well_is_no_result() -> None:
    assert results("valid") == []
    assert results("invalid") == [("other-weights", "the certificate belongs to other weights")]
    assert results("unmet") == [("requirement", "not met: bound <= baseline (actual 31.5, baseline 30)")]
    assert [rule for rule, _ in results("report")] == ["requirement"]


def test_what_did_not_run_is_a_result_and_no_success() -> None:
    assert [rule for rule, _ in results("not-run")] == ["not-run"]
    (invocation,) = json.loads(LOGS["not-run"])["runs"][0]["invocations"]
    assert invocation["executionSuccessful"] is False
    assert "cannot read" in invocation["toolExecutionNotifications"][0]["message"]["text"]


def test_places_are_relative_uris_and_digests_stand_beside() -> None:
    (run,) = json.loads(LOGS["invalid"])["runs"]
    place = run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert place == "a/m%20x.onnx"
    assert run["artifacts"][1] == {"location": {"uri": place}, "hashes": {"sha-256": "2e" * 32}}
    (run,) = json.loads(LOGS["absolute"])["runs"]
    place = run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert place == "file:///models/a%20b%23c%3Fd.onnx"


def test_an_alarm_keeps_its_fingerprint_while_numbers_change() -> None:
    def fingerprint(result: CheckResult) -> str:
        log = json.loads(sarif_log(check_alerts(result)))
        return str(log["runs"][0]["results"][0]["partialFingerprints"]["lipcert/v1"])

    worse = UNMET.model_copy(update={"actual": 77.0})
    other = UNMET.model_copy(update={"text": "bound <= 1.1 * baseline"})
    same = fingerprint(check(requirements=(UNMET,)))
    assert same == fingerprint(check(requirements=(worse,)))
    assert same != fingerprint(check(requirements=(other,)))


# --- GitHub ---------------------------------------------------------------------------------------------------


def test_annotations() -> None:
    lines = [annotation(alert) for alert in check_alerts(check(requirements=(UNMET,)))]
    assert lines[0].startswith("::notice file=a/m x.onnx,title=lipcert%3A proved::l2 bound of the output ≤ 31.503")
    assert lines[1].startswith("::error file=a/m x.onnx,title=lipcert%3A requirement::not met: bound <= baseline")


@given(st.text(max_size=60), st.text(min_size=1, max_size=60))
def test_no_text_breaks_out_of_an_annotation(message: str, file: str) -> None:
    line = annotation(Alert("not-run", False, message, file))
    head, _, data = line.removeprefix("::error ").partition("::")
    assert "\n" not in line
    assert "\r" not in line
    properties = dict(part.split("=", 1) for part in head.split(","))
    assert set(properties) == {"file", "title"}

    def decoded(text: str) -> str:
        for code, character in (("%3A", ":"), ("%2C", ","), ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
            text = text.replace(code, character)
        return text

    assert decoded(properties["file"]) == file
    assert decoded(data) == message


def test_a_summary_is_appended_where_the_variable_says(tmp_path: Path) -> None:
    place = tmp_path / "summary.md"
    assert write_summary("# one", {}) is False
    assert write_summary("# one", {"GITHUB_STEP_SUMMARY": ""}) is False
    for text in ("# one", "# two"):
        assert write_summary(text, {"GITHUB_STEP_SUMMARY": str(place)})
    assert place.read_text() == "# one\n# two\n"
    with pytest.raises(UsageError, match="GITHUB_STEP_SUMMARY"):
        write_summary("x", {"GITHUB_STEP_SUMMARY": str(tmp_path / "no" / "x")})


def test_summaries_of_checks() -> None:
    good = check_markdown(check(requirements=(MET, UNMET)))
    assert "✓ **Valid.** l2 bound of the output ≤ 31.503" in good
    assert "| `bound <= baseline` | 31.5, baseline 30 | ✗ **not met** |" in good
    assert "2e" * 32 in good
    bad = check_markdown(check(valid=False))
    assert "✗ **Invalid.** the certificate belongs to other weights" in bad
    assert "✓" not in bad
    assert "✓" not in failure_markdown("no file")


# --- in-toto --------------------------------------------------------------------------------------------------


def on_disk(folder: Path, **changes: Any) -> CheckResult:
    """A check of two files that exist; returns it with their digests."""
    files = {}
    for name, file in (("certificate", "m.lipcert"), ("model", "m.onnx")):
        (folder / file).write_bytes(name.encode())
        digest = hashlib.sha256(name.encode()).hexdigest()
        files[name] = FileDigest(path=str(folder / file), sha256=digest)
    return check().model_copy(update={**files, **changes})


def test_a_statement_is_about_both_files(tmp_path: Path) -> None:
    result = on_disk(tmp_path)
    statement = json.loads(check_statement(result))
    assert list(statement) == ["_type", "subject", "predicateType", "predicate"]
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["subject"] == [
        {"name": file, "digest": {"sha256": hashlib.sha256((tmp_path / file).read_bytes()).hexdigest()}}
        for file in ("m.onnx", "m.lipcert")
    ]
    schema = published_schema(CheckResult)
    assert statement["predicateType"] == schema["$id"]
    jsonschema.validate(statement["predicate"], schema, cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    "changes",
    [{"valid": False}, {"requirements": (UNMET,)}, {"model": None}, {"model": FileDigest(path="m", sha256=None)}],
)
def test_only_what_passed_and_was_read_is_attested(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="nothing to attest"):
        check_statement(on_disk(tmp_path, **changes))


def test_a_model_in_several_files_or_changed_meanwhile_is_not_attested(tmp_path: Path) -> None:
    result = on_disk(tmp_path)
    (tmp_path / "m.onnx").write_bytes(b"other")
    with pytest.raises(UsageError, match="in other files, or changed"):
        check_statement(result)
