"""What a check rests on: it imports no solver and no tensor library, and docs/trust.md lists the rest."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.pages import between
from benchmarks.trusted_base import FOREIGN, PAGE, ROOT, code_lines, imported, reasons_table, sample
from lipcert.proof import Reason
from lipcert.proof.exact import RULES as EXACT
from lipcert.proof.local import LOCAL_RULES
from lipcert.proof.rules import RULES

REMEDY = "run `python -m benchmarks.trusted_base` and commit docs/trust.md"


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return imported(*sample(tmp_path_factory.mktemp("trust")))


def test_checking_imports_no_solver_and_no_tensor_library(modules: dict[str, Path]) -> None:
    roots = {name.partition(".")[0] for name in modules}
    assert {"numpy", "onnx", "lipcert"} <= roots
    assert not FOREIGN & roots


def test_checking_runs_no_method_and_no_report(modules: dict[str, Path]) -> None:
    rooms = {name.split(".")[1] for name in modules if name.startswith("lipcert.")}
    assert rooms == {"errors", "files", "network", "proof"}
    assert not [name for name in modules if name.startswith("lipcert.network.readers.torch")]


PROGRAM = """
import sys
from lipcert.cli.app import run
code = run(["check", sys.argv[2], sys.argv[1], "--json"])
print(sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
sys.exit(code)
"""


def test_the_whole_command_imports_neither(tmp_path: Path) -> None:
    model, certificate = sample(tmp_path)
    command = [sys.executable, "-c", PROGRAM, str(model), str(certificate)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    assert '"code": "proved"' in run.stdout
    assert not FOREIGN & set(re.findall(r"'(\w+)'", run.stderr))


def test_the_page_lists_the_files(modules: dict[str, Path]) -> None:
    listed = dict(re.findall(r"`([\w/]+\.py)` (\d+)", between(PAGE.read_text(encoding="utf-8"), "files")))
    package = ROOT / "lipcert"
    files = {file for name, file in modules.items() if name.partition(".")[0] == "lipcert"}
    files |= set((package / "proof" / "exact").glob("*.py"))
    lines = {f.relative_to(package).as_posix(): code_lines(f.read_text(encoding="utf-8")) for f in files}
    assert set(listed) == set(lines), REMEDY
    assert sum(map(int, listed.values())) == pytest.approx(sum(lines.values()), rel=0.05), REMEDY


def test_the_page_lists_the_reasons_and_the_rules() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert between(page, "reasons") == reasons_table(), REMEDY
    assert set(re.findall(r"^\| `([\w-]+/v\d+)` \|", page, flags=re.MULTILINE)) == set(RULES) | set(EXACT) | set(
        LOCAL_RULES
    )


def test_reasons_are_one_line_with_a_code_of_their_own() -> None:
    assert len({reason.code for reason in Reason}) == len(Reason)
    for reason in Reason:
        assert re.fullmatch("[a-z]+(-[a-z]+)*", reason.code)
        assert "\n" not in reason.text
        assert reason.remedy or reason is Reason.PROVED


def test_lines_of_code_leave_out_prose() -> None:
    text = '"""Doc\nstring."""\n\nx = 1  # one\n# none\n\n\ndef f():\n    """Doc."""\n    return (\n        x\n    )\n'
    assert code_lines(text) == 5
