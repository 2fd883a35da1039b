"""The files and the page for CI: every command of the page is run, the action and the hook are run or read closely."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from lipcert import api
from lipcert.cli import app
from lipcert.robustness import certifier

ROOT = Path(__file__).resolve().parents[1]
GUIDE = (ROOT / "docs" / "guard-a-model-in-ci.md").read_text(encoding="utf-8")
DIGITS = ROOT / "examples" / "digits"
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
HOOKS: list[dict[str, Any]] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
# where the project was installed before it had the plugin, the plugin is named instead
PLUGIN = () if entry_points(group="pytest11", name="lipcert") else ("-p", "lipcert.pytest_plugin")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module", autouse=True)
def no_search() -> Iterator[None]:
    """Bounds without the search for a lower bound, which takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "_lower", lambda network, norm, seconds: 0.5)
        patch.setattr(certifier, "_with_lower", lambda basis, *_: basis)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the page's first block was followed."""
    place = tmp_path_factory.mktemp("guide")
    shutil.copy(DIGITS / "digits.onnx", place)
    with np.load(DIGITS / "test.npz") as data:  # a few samples are enough to follow the page
        np.savez(place / "test.npz", images=data["images"][:30], labels=data["labels"][:30])
    # the cheapest method, so that the commands of the page are run as they stand and in seconds
    (place / "lipcert.toml").write_text("[bound]\nmethod = 'product'\n[certify]\nmethod = 'product'\n")
    (place / "test_model.py").write_text(blocks("python")[0].replace("eps=", "method='product', eps="))
    (place / "pytest.ini").write_text(blocks("ini")[0])
    for line in blocks("sh")[0].splitlines():
        assert follow(line, place) == 0, line
    return place


def follow(line: str, place: Path) -> int:
    """Run a command of the page in a folder; return its exit code."""
    command, _, target = line.partition(" > ")
    program, *arguments = shlex.split(command)
    if program == "python":
        assert arguments[:2] == ["-m", "pytest"]
        found = subprocess.run([sys.executable, "-m", "pytest", *PLUGIN, *arguments[2:]], cwd=place, check=False)
        return found.returncode
    assert program == "lipcert"
    out = io.StringIO()
    with contextlib.chdir(place), contextlib.redirect_stdout(out):
        code = app.run(arguments)
    if target:
        (place / target).write_text(out.getvalue(), encoding="utf-8")
    return code


def test_every_command_of_the_page_works(folder: Path) -> None:
    later = [line for block in blocks("sh")[1:] for line in block.splitlines()]
    assert len(later) == 7
    for line in later:
        assert follow(line, folder) == 0, line
    assert {"lipcert.sarif", "digits.intoto.json"} <= {path.name for path in folder.iterdir()}


def test_a_model_that_changed_ends_as_the_page_shows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed = folder / "changed"
    changed.mkdir()
    content = bytearray((folder / "digits.onnx").read_bytes())
    content[-4000] ^= 1
    (changed / "digits.onnx").write_bytes(content)
    shutil.copy(folder / "digits.lipcert", changed)
    out = io.StringIO()
    with contextlib.chdir(changed), contextlib.redirect_stdout(out):
        assert app.run(["check", "digits.lipcert", "digits.onnx"]) == 3
    shown = [line.rstrip() for line in out.getvalue().splitlines() if line.strip()]
    assert shown == blocks("text")[0].splitlines()
    for name in ("test_model.py", "pytest.ini", "test.npz", "bound.json"):
        shutil.copy(folder / name, changed)
    assert follow("python -m pytest test_model.py -k proved --lipcert-partial", changed) == 1


def test_the_pages_workflow_uses_the_action_as_it_is() -> None:
    workflow, hooks = map(yaml.safe_load, blocks("yaml"))
    step = next(step for step in workflow["jobs"]["model"]["steps"] if "lipcert" in step["uses"])
    needed = {name for name, item in ACTION["inputs"].items() if item.get("required")}
    assert needed <= set(step["with"]) <= set(ACTION["inputs"])
    assert {"model", "certificate"} == needed
    (used,) = hooks["repos"][0]["hooks"]
    assert used["id"] in {hook["id"] for hook in HOOKS}
    assert f"steps.{step['id']}.outputs.sarif" in GUIDE


# --- action.yml -----------------------------------------------------------------------------------------------

# docs.github.com, "Metadata syntax reference": the keys that a composite action may have
TOP = {"name", "author", "description", "inputs", "outputs", "runs", "branding"}
INPUT = {"description", "required", "default", "deprecationMessage"}
RUN_STEP = {"run", "shell", "if", "name", "id", "env", "working-directory", "continue-on-error"}
USES_STEP = {"uses", "with", "if", "name", "id", "env", "continue-on-error"}


def test_the_action_has_the_keys_of_a_composite_action() -> None:
    assert {"name", "description", "runs"} <= set(ACTION) <= TOP
    assert all({"description"} <= set(item) <= INPUT for item in ACTION["inputs"].values())
    assert all(set(item) == {"description", "value"} for item in ACTION["outputs"].values())
    assert set(ACTION["runs"]) == {"using", "steps"}
    assert ACTION["runs"]["using"] == "composite"
    for step in ACTION["runs"]["steps"]:
        assert set(step) <= (RUN_STEP if "run" in step else USES_STEP)
        assert "run" not in step or step["shell"] == "bash"
        assert "uses" not in step or re.fullmatch(r"[\w.-]+/[\w./-]+@v\d+", step["uses"])


def test_every_expression_of_the_action_names_something_that_exists() -> None:
    steps = {step["id"] for step in ACTION["runs"]["steps"] if "id" in step}
    for expression in re.findall(r"\$\{\{ (.*?) \}\}", (ROOT / "action.yml").read_text()):
        kind, name, *rest = expression.split(".")
        assert kind in ("inputs", "steps")
        assert name in (ACTION["inputs"] if kind == "inputs" else steps)
        assert rest in ([], ["outputs", "sarif"])


def test_inputs_never_become_part_of_a_script() -> None:
    assert all("${{" not in step.get("run", "") for step in ACTION["runs"]["steps"])


def test_the_action_installs_what_a_check_needs() -> None:
    """That these packages suffice is tested with the command line's gate."""
    (install,) = [step["run"] for step in ACTION["runs"]["steps"] if "pip install" in step.get("run", "")]
    assert "-c constraints.txt numpy onnx pydantic rich typer\n" in install
    assert (ROOT / "constraints.txt").is_file()


def check_step(folder: Path, **inputs: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """Run the action's last step as the runner would; return what it did and its outputs."""
    step = next(step for step in ACTION["runs"]["steps"] if step.get("id") == "check")
    defaults = {name: str(item.get("default", "")) for name, item in ACTION["inputs"].items()}
    given = {**defaults, **inputs}
    values = {name: given[text.removeprefix("${{ inputs.").removesuffix(" }}")] for name, text in step["env"].items()}
    output, summary = folder / "output.txt", folder / "summary.md"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    runner = {"GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(summary), "PATH": path, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        cwd=folder,
        env={**os.environ, **values, **runner},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return found, output.read_text()


@pytest.mark.skipif(shutil.which("bash") is None, reason="the action's steps are for bash")
def test_the_actions_step_checks_and_fails(folder: Path) -> None:
    files = {"certificate": "digits.lipcert", "model": "digits.onnx", "baseline": "bound.json"}
    found, outputs = check_step(folder, **files, require="bound <= 1.05 * baseline\n\nbound > 0\n", options="--quiet\n")
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("met ") == 2
    assert found.stderr.count("::notice ") == 3
    assert "sarif=lipcert.sarif\n" in outputs
    assert "Valid" in (folder / "summary.md").read_text()
    found, outputs = check_step(folder, model="$(touch oops)", certificate="-x; exit 0", sarif="b.sarif")
    assert found.returncode == 2
    assert "::error " in found.stderr
    assert outputs.endswith("sarif=b.sarif\n")
    assert (folder / "b.sarif").exists()
    assert not (folder / "oops").exists()


# --- pre-commit -----------------------------------------------------------------------------------------------


def test_the_hook_checks_and_cannot_be_left_out(folder: Path) -> None:
    """Keys: pre-commit.com, "Creating new hooks"."""
    (hook,) = HOOKS
    known = {"id", "name", "description", "entry", "language", "pass_filenames", "always_run", "files", "types"}
    assert {"id", "name", "entry", "language"} <= set(hook) <= known
    assert (hook["pass_filenames"], hook["always_run"]) == (False, True)
    _, config = map(yaml.safe_load, blocks("yaml"))
    arguments = config["repos"][0]["hooks"][0]["args"]
    assert follow(shlex.join([*shlex.split(hook["entry"]), *arguments]), folder) == 0
    assert follow(hook["entry"], folder) == 2, "a hook that was given no files fails"
