"""The README's two commands: CI runs the second word for word, and the first certifies the shipped example."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from lipcert.cli.app import run

ROOT = Path(__file__).resolve().parents[1]


def commands() -> tuple[str, str]:
    """Return the main-job command and the test command."""
    lines = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("python3 -m venv")]
    assert len(lines) == 2, "the README has two set-up commands, each on one line"
    return lines[0], lines[1]


def test_ci_runs_the_test_command() -> None:
    assert commands()[1] in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_main_job_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main_job = commands()[0].split("&&")[-1]
    program, *arguments = shlex.split(main_job)
    assert program == ".venv/bin/lipcert"
    place = arguments.index("--report") + 1
    arguments[place] = str(tmp_path / arguments[place])
    monkeypatch.chdir(ROOT)
    assert run(arguments) == 0
    folder = Path(arguments[place])
    report = json.loads((folder / "report.json").read_text())
    with np.load(ROOT / "examples" / "digits" / "test.npz") as data:
        assert report["samples"] == len(data["labels"])
    assert report["clean_accuracy"] >= 0.96
    assert report["certified_accuracy"]["0.25"] >= 0.85
    assert report["level"] == "verified"
    assert "digits.onnx" in (folder / "report.html").read_text()


def test_constraints_pin_what_the_project_needs() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower() for line in lines if "==" in line}
    assert {"torch", "numpy", "scipy", "cvxpy", "onnx", "pytest", "ruff", "mypy"} <= pinned
    assert "torch==2.13.0" in lines
