"""Markdown and JUnit say the same as the report."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from sample_documents import make_bound, make_report

from lipcert.report import wording
from lipcert.report.junit import report_junit
from lipcert.report.markdown import report_markdown
from lipcert.results import RequirementResult


def test_junit_has_one_case_per_requirement() -> None:
    root = ElementTree.fromstring(report_junit(make_report(500, threshold=0.999)))
    cases = root.findall(".//testcase")
    assert [case.get("name") for case in cases] == ["certified_accuracy@0.1 >= 0.999", "clean_accuracy >= 0.95"]
    failures = [case.find("failure") is not None for case in cases]
    assert failures == [True, False]
    suite = root.find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")


def test_junit_without_requirements_is_empty_and_valid() -> None:
    root = ElementTree.fromstring(report_junit(make_report(500).model_copy(update={"requirements": ()})))
    assert root.findall(".//testcase") == []


def test_markdown_has_verdict_claim_and_a_row_per_eps() -> None:
    report = make_report(500)
    text = report_markdown(report)
    assert wording.claim(report) in text
    rows = [line for line in text.splitlines() if line.startswith("| 0.")]
    assert len(rows) == len(report.eps)
    assert f"{report.certified_count['0.1']} (" in rows[0]


def test_markdown_tables_survive_pipes_and_ticks_in_names() -> None:
    hostile = RequirementResult(text="a|b`c\nd", actual=0.5, passed=False)
    text = report_markdown(make_report(500).model_copy(update={"requirements": (hostile,)}))
    row = next(line for line in text.splitlines() if "not met**" in line and line.startswith("| `"))
    assert row.replace("\\|", "").count("|") == 4


def test_long_parts_of_the_markdown_are_folded() -> None:
    text = report_markdown(make_report(500))
    head, *folds = text.split("<details>")
    assert len(head) < 1600
    assert [re.findall("<summary>(.*)</summary>", fold)[0] for fold in folds] == [
        "What is not claimed", "Per class", "Layer by layer", "Methods", "Provenance", "Check it yourself",
    ]  # fmt: skip
    assert text.count("</details>") == len(folds)
    assert "**4.117**" in folds[2], "the largest factor is marked"
    for fold in folds:
        assert "</summary>\n\n" in fold, "without an empty line a table inside is not read as one"


def test_markdown_names_from_outside_are_no_markup() -> None:
    report = make_report(500)
    layer = report.bound.contributions[0].model_copy(update={"node": "a|`b\n</details>"})
    bound = report.bound.model_copy(update={"contributions": (layer,)})
    text = report_markdown(report.model_copy(update={"bound": bound}))
    assert text.replace("`a\\|'b </details>`", "").count("</details>") == text.count("<details>")
    rows = [line for line in text.splitlines() if line.startswith("| `a")]
    assert rows == ["| `a\\|'b </details>` | Dense | **4.117** |"]


def test_the_largest_layer_is_named_and_what_the_factors_are() -> None:
    bound = make_bound()
    assert "plain product of the layers' factors would be" in wording.layers(bound)
    assert "product does not go by it" in wording.layers(bound)
    assert "scale.fold (Dense) has the largest, 4.117" in wording.layers(bound)
    whole = bound.model_copy(update={"bound": bound.contributions[-1].cumulative})
    assert wording.layers(whole).startswith("The bound is the product of the layers' factors")
    assert "stands at the last" in wording.layers(whole.model_copy(update={"method": "compositional"}))


def test_the_claim_where_nothing_is_proved() -> None:
    report = make_report(500)
    none = report.model_copy(update={"certified_count": dict.fromkeys(report.certified_count, 0)})
    assert wording.claim(none).startswith("None of the 500 samples is proved, at level verified-exec, to keep")
    assert report.model.weights_digest[:12] in wording.claim(none)


def test_headlines_count() -> None:
    report = make_report(500)
    met = RequirementResult(text="m", actual=1.0, passed=True)
    unmet = RequirementResult(text="u", actual=0.0, passed=False)
    cases = {
        (): "No requirement was set",
        (met,): "The requirement is met",
        (unmet,): "The requirement is not met",
        (met, met): "Both requirements are met",
        (met, met, met): "All 3 requirements are met",
        (unmet, unmet, met): "2 of 3 requirements are not met",
    }
    for requirements, headline in cases.items():
        assert wording.headline(report.model_copy(update={"requirements": requirements})) == headline


def test_commands_quote_names_with_spaces() -> None:
    commands = [step.command for step in wording.recheck(make_report(500))]
    assert commands[0] == "sha256sum 'models/mnist net <256x2>.onnx'"
    assert commands[1] == "lipcert check run/model.lipcert 'models/mnist net <256x2>.onnx'"


def test_a_bound_that_misses_its_requirement_is_not_shown_as_meeting_it() -> None:
    just_above = RequirementResult(text="bound <= 5", actual=5.00000001, passed=False)
    assert float(wording.actual(just_above)) > 5
    just_below = RequirementResult(text="certified_accuracy@0.1 >= 0.6", actual=0.599999999, passed=False)
    assert float(wording.actual(just_below)) < 0.6


def test_what_is_bounded_is_said() -> None:
    report = make_report(500)

    def said(quantity: str | None) -> str:
        bound = report.bound.model_copy(update={"quantity": quantity})
        return wording.bound_claim(report.model_copy(update={"bound": bound}))

    assert said("output").startswith("The output moves at most 31.5031 times")
    assert said("features").startswith("The features before the last linear layer move at most 31.5031 times")
    assert said("margins").startswith("The difference of any two logits moves at most 31.5031 times")
    assert "output" not in said(None)


def test_bounds_of_pairs_and_their_certificate_are_said() -> None:
    report = make_report()
    assert "Every pair" not in wording.bound_claim(report)
    table = ((0.0, 2.5, 4.0), (2.5, 0.0, 3.0), (4.0, 3.0, 0.0))
    update = {"quantity": "margins", "margins": table, "bound": 4.0, "certificate": "out/margins.lipcert"}
    pairs = report.model_copy(update={"margins": report.bound.model_copy(update=update)})
    assert wording.bound_claim(pairs).endswith("difference of its two logits: from 2.5 to 4.")
    assert sum("out/margins.lipcert" in step.command for step in wording.recheck(pairs)) == 1


def test_the_check_command_names_the_same_network() -> None:
    """Normalisation is part of the network, so a check without it would be about another one."""
    report = make_report()
    bound = report.bound.model_copy(update={"certificate": "out/bound.lipcert"})
    command = "lipcert certify m.onnx --mean 0.13 --std=0.31 --data d.npz --eps 0.1"
    provenance = report.provenance.model_copy(update={"command": command})
    steps = wording.recheck(report.model_copy(update={"bound": bound, "provenance": provenance}))
    (check,) = [step.command for step in steps if "lipcert check" in step.command]
    assert check.endswith("--mean 0.13 --std=0.31")


def test_the_commands_name_the_factory_where_there_was_one() -> None:
    report = make_report(20)
    model = report.model.model_copy(update={"path": "w.pth", "sha256": "0" * 64})
    command = "lipcert certify nets:build@w.pth --data d.npz --eps 0.5"
    provenance = report.provenance.model_copy(update={"command": command})
    steps = wording.recheck(report.model_copy(update={"model": model, "provenance": provenance}))
    checks = [step.command for step in steps if step.command.startswith("lipcert check")]
    assert checks and all(check.split()[3] == "nets:build@w.pth" for check in checks)
    assert steps[0].command == "sha256sum w.pth"
