"""`lipcert check` and `certify` as gates: requirements, baselines, and faces for machines, on the shipped network."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"


@pytest.fixture
def work(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the network and its certificate, in which commands run."""
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    for name in ("digits.onnx", "test.npz"):
        shutil.copy(DIGITS / name, tmp_path / name)
    arguments = ("--method", "product", "--out", "digits.lipcert", "--json")
    found = cli("bound", "digits.onnx", *arguments)
    assert found.code == 0, found.err
    (tmp_path / "baseline.json").write_text(found.out)
    return tmp_path


@pytest.fixture(autouse=True)
def no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    from lipcert import api

    monkeypatch.setattr(api, "_lower", lambda network, norm, seconds: 0.5)


def flip_one_bit(path: Path) -> None:
    """Change the last bit of one weight."""
    model = onnx.load(path)
    tensor = next(t for t in model.graph.initializer if len(t.dims) == 2)
    weights = numpy_helper.to_array(tensor).copy()
    weights.view(np.uint32)[0, 0] ^= 1
    tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
    onnx.save(model, path)


def test_one_bit_of_one_weight_fails_the_check_and_says_what_to_do(cli: Any, work: Path) -> None:
    assert cli("check", "digits.lipcert", "digits.onnx").code == 0
    flip_one_bit(work / "digits.onnx")
    found = cli("check", "digits.lipcert", "digits.onnx", "--mean", "0.0", "--annotate", "github")
    assert found.code == 3
    first, second = found.out.strip().splitlines()
    assert "the certificate belongs to" in first
    assert "the model changed since" in cli("check", "digits.lipcert", "digits.onnx").out
    program, *arguments = shlex.split(second)
    assert program == "lipcert"
    assert cli(*arguments, "--method", "product").code == 0, "the command that is proposed certifies the model anew"
    assert cli("check", "digits.lipcert", "digits.onnx", "--mean", "0.0").code == 0


@pytest.mark.parametrize(("quantity", "norm"), [("3", "linf"), ("3-8", "l2"), ("features", "l1")])
def test_what_is_proposed_is_about_the_same_claim(cli: Any, work: Path, quantity: str, norm: str) -> None:
    arguments = ("--method", "product", "--output", quantity, "--norm", norm)
    assert cli("bound", "digits.onnx", *arguments, "--out", "q.lipcert").code == 0
    flip_one_bit(work / "digits.onnx")
    command = shlex.split(cli("check", "q.lipcert", "digits.onnx").out.splitlines()[1])
    assert (command[command.index("--output") + 1], command[command.index("--norm") + 1]) == (quantity, norm)


def test_requirements_on_a_certified_bound(cli: Any, work: Path) -> None:
    bound = json.loads((work / "baseline.json").read_text())["bound"]
    for text, code in ((f"bound <= {bound!r}", 0), (f"bound < {bound!r}", 1), ("bound <= 0.99 * baseline", 1)):
        baseline = ("--baseline", "baseline.json") if "baseline" in text else ()
        found = cli("check", "digits.lipcert", "digits.onnx", "--require", text, *baseline, "--json")
        assert found.code == code
        (verdict,) = found.document["requirements"]
        assert (verdict["text"], verdict["actual"], verdict["passed"]) == (text, bound, code == 0)
        assert verdict["baseline"] == (bound if baseline else None)
    shown = cli("check", "digits.lipcert", "digits.onnx", "--require", "bound <= 0.5 * baseline", *baseline)
    assert "not met" in shown.out
    assert "baseline 4.44" in shown.out


def test_a_model_that_got_worse_is_certified_and_caught(cli: Any, work: Path) -> None:
    model = onnx.load(work / "digits.onnx")
    for tensor in model.graph.initializer:
        if list(tensor.dims) in ([10, 128], [128, 10], [10]):
            tensor.CopyFrom(numpy_helper.from_array(np.float32(1.25) * numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, work / "digits.onnx")
    assert cli("bound", "digits.onnx", "--method", "product", "--out", "digits.lipcert").code == 0
    held = ("--require", "bound <= 1.05 * baseline", "--baseline", "baseline.json")
    found = cli("check", "digits.lipcert", "digits.onnx", *held, "--json")
    assert (found.code, found.document["valid"]) == (1, True)
    (verdict,) = found.document["requirements"]
    assert verdict["actual"] > 1.2 * verdict["baseline"]
    assert verdict["threshold"] == pytest.approx(1.05 * verdict["baseline"])


def test_an_invalid_certificate_outweighs_a_requirement_and_meets_none(cli: Any, work: Path) -> None:
    flip_one_bit(work / "digits.onnx")
    found = cli("check", "digits.lipcert", "digits.onnx", "--require", "bound <= 1e9", "--json")
    assert found.code == 3
    assert found.document["requirements"][0]["passed"] is False
    assert found.document["requirements"][0]["actual"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--require", "bound <= baseline"), "give --baseline FILE"),
        (("--baseline", "baseline.json"), "no requirement speaks of the baseline"),
        (("--require", "bound <= baseline", "--baseline", "no.json"), "cannot read the baseline"),
        (("--require", "clean_accuracy > 0"), "there is only bound"),
        (("--sarif", "no/x.sarif"), "'no'"),
        (("--annotate", "gitlab"), "github"),
    ],
)
def test_a_gate_that_cannot_be_meant_is_an_error(cli: Any, work: Path, arguments: tuple[str, ...], words: str) -> None:
    found = cli("check", "digits.lipcert", "digits.onnx", *arguments)
    assert (found.code, found.out) == (2, "")
    assert words in found.err


def test_digests_are_those_of_the_files(cli: Any, work: Path) -> None:
    from hashlib import sha256

    document = cli("check", "digits.lipcert", "digits.onnx", "--json", "--in-toto", "s.json").document
    expected = {name: sha256((work / name).read_bytes()).hexdigest() for name in ("digits.lipcert", "digits.onnx")}
    assert {document[part]["path"]: document[part]["sha256"] for part in ("certificate", "model")} == expected
    statement = json.loads((work / "s.json").read_text())
    assert {subject["name"]: subject["digest"]["sha256"] for subject in statement["subject"]} == expected
    assert statement["predicate"] == document


def test_what_did_not_pass_is_not_attested(cli: Any, work: Path) -> None:
    flip_one_bit(work / "digits.onnx")
    assert cli("check", "digits.lipcert", "digits.onnx", "--in-toto", "s.json").code == 3
    assert not (work / "s.json").exists()


def test_machines_are_told_on_stderr_only_where_asked(cli: Any, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(work / "summary.md"))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    arguments = ("check", "digits.lipcert", "digits.onnx", "--require", "bound <= 1")
    found = cli(*arguments)
    assert (found.code, found.err) == (1, "")
    assert not (work / "summary.md").exists()
    found = cli(*arguments, "--annotate", "github", "--json", "--quiet")
    assert found.code == 1
    assert found.document["valid"] is True
    notice, error = found.err.splitlines()
    assert notice.startswith("::notice file=digits.onnx,")
    assert error.startswith("::error file=digits.onnx,")
    assert "not met" in (work / "summary.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("check", "missing.lipcert", "digits.onnx"), 2),
        (("check", "digits.lipcert", "missing.onnx"), 2),
        (("check", "test.npz", "digits.onnx"), 3),
        (("certify", "missing.onnx", "--data", "test.npz", "--eps", "1"), 2),
        (("certify", "digits.onnx", "--data", "missing.npz", "--eps", "1"), 2),
    ],
)
def test_what_did_not_run_is_told_as_a_failure(cli: Any, work: Path, arguments: tuple[str, ...], code: int) -> None:
    found = cli(*arguments, "--annotate", "github", "--sarif", "x.sarif", "--quiet")
    assert (found.code, found.out) == (code, "")
    annotation, error = found.err.splitlines()
    assert annotation.startswith("::error file=")
    assert "not-run" in annotation
    assert error.startswith("lipcert: error: ")
    (run,) = json.loads((work / "x.sarif").read_text())["runs"]
    assert run["invocations"][0]["executionSuccessful"] is False
    assert [result["ruleId"] for result in run["results"]] == ["not-run"]


def test_certify_is_held_against_its_baseline(cli: Any, work: Path) -> None:
    run = ("certify", "digits.onnx", "--data", "test.npz", "--eps", "0.25", "--method", "product", "--limit", "80")
    assert cli(*run, "--report", "r").code == 0
    texts = ("certified_accuracy@0.25 >= baseline - 0.01", "clean_accuracy > baseline")
    held = ("--baseline", "r/report.json", "--require", texts[0], "--require", texts[1])
    found = cli(*run, *held, "--sarif", "x.sarif", "--annotate", "github", "--json")
    assert found.code == 1
    assert [r["passed"] for r in found.document["requirements"]] == [True, False]
    assert all(r["actual"] == r["baseline"] for r in found.document["requirements"])
    (log,) = json.loads((work / "x.sarif").read_text())["runs"]
    assert [result["ruleId"] for result in log["results"]] == ["requirement"]
    assert [line.split()[0] for line in found.err.splitlines() if line.startswith("::")] == ["::notice", "::error"]
    found = cli(*run[:-1], "79", *held)
    assert found.code == 2
    assert "other samples" in found.err


LIGHT = {"numpy", "onnx", "pydantic", "rich", "typer"}  # what action.yml installs to check an ONNX model


def test_a_check_of_an_onnx_model_needs_few_packages(cli: Any, work: Path) -> None:
    """Everything that the project depends on beyond these is out of reach, and the check does not miss it."""
    code = (
        "import sys\n"
        "class Closed:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in CLOSED: raise ImportError(f'{name} is out of reach')\n"
        "CLOSED = {'torch', 'cvxpy', 'scipy', 'scs', 'clarabel', 'safetensors', 'jinja2', 'matplotlib', "
        "'junitparser', 'flint', 'pytest'}\n"
        "sys.meta_path.insert(0, Closed())\n"
        "from lipcert.cli import app\n"
        "sys.exit(app.run(sys.argv[1:]))\n"
    )
    arguments = ("--annotate", "github", "--sarif", "x.sarif", "--in-toto", "s.json", "--require", "bound <= baseline")
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            "check",
            "digits.lipcert",
            "digits.onnx",
            *arguments,
            "--baseline",
            "baseline.json",
        ],
        cwd=work,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert "met" in found.stdout
