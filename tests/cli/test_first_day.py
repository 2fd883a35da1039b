"""What somebody new meets: the help and its examples, tab completion, and Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from lipcert.bounds.local.registry import LOCAL_METHODS
from lipcert.bounds.registry import METHODS
from lipcert.cli import app, completion, report
from lipcert.cli.command import Command
from lipcert.cli.progress import Lines, Tracker

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "digits"
SAMPLES = 60
WIDTH = 78  # columns that a help page of 80 leaves for an example
EXAMPLES = {
    **{(command.name,): command.examples for command in app.COMMANDS},
    **{("report", command.name): command.examples for command in report.COMMANDS},
}


def copy_example(target: Path) -> Path:
    """Copy the shipped example with its first samples."""
    for file in EXAMPLE.iterdir():
        if file.is_file():
            shutil.copy(file, target)
    with np.load(EXAMPLE / "test.npz") as data:
        np.savez(target / "test.npz", images=data["images"][:SAMPLES], labels=data["labels"][:SAMPLES])
    return target


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped example in the folder where commands run."""
    return copy_example(tmp_path)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """A copy of the shipped example for all examples, and those that have worked there."""
    return copy_example(tmp_path_factory.mktemp("digits")), set()


# --- help -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXAMPLES, ids="-".join)
def test_every_help_shows_an_example_in_one_line(cli: Any, name: tuple[str, ...]) -> None:
    assert EXAMPLES[name]
    found = cli(*name, "--help")
    assert found.code == 0
    for example in EXAMPLES[name]:
        assert len(example) <= WIDTH
        assert example in found.out


@pytest.mark.parametrize("name", EXAMPLES, ids="-".join)
def test_every_example_works(
    cli: Any, workplace: tuple[Path, set[str]], monkeypatch: pytest.MonkeyPatch, name: tuple[str, ...]
) -> None:
    place, worked = workplace
    monkeypatch.chdir(place)
    for example in EXAMPLES[name]:
        if example not in worked:
            program, *arguments = shlex.split(example)
            found = cli(*arguments)
            assert (program, found.code) == ("lipcert", 0), found.err
            assert found.out
            worked.add(example)


def test_alone_it_shows_three_of_these_examples(cli: Any) -> None:
    shown = [line.strip() for line in cli().out.splitlines() if line.startswith("      lipcert ")]
    assert len(shown) == 3
    assert set(shown) <= {example for examples in EXAMPLES.values() for example in examples}


@pytest.mark.parametrize("command", (*app.COMMANDS, *report.COMMANDS), ids=lambda command: command.name)
def test_every_option_says_what_it_does(command: Command) -> None:
    for parameter in command.parameters():
        _, shown = get_args(parameter.annotation)
        assert shown.help, parameter.name
        assert shown.help.endswith("."), shown.help
        assert "[" not in shown.help, "brackets are markup and vanish"


def test_flags_take_no_value(cli: Any) -> None:
    lines = cli("certify", "--help").out.splitlines()
    flags = [line for line in lines if re.search("--(json|quiet|resume|allow-pickle) ", line)]
    assert len(flags) == 4
    assert not any("<bool>" in line for line in flags)


# --- tab completion ---------------------------------------------------------------------------------------------


def complete(shell: str, *words: str) -> str:
    line = " ".join(words)
    environment = {
        **os.environ,
        "_LIPCERT_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": line,
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    return subprocess.run(
        [sys.executable, "-m", "lipcert"], env=environment, capture_output=True, text=True, timeout=60, check=True
    ).stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_are_completed(shell: str) -> None:
    found = complete(shell, "lipcert", "c")
    assert all(name in found for name in ("compare", "certify", "check"))
    assert "inspect" not in found


def test_options_and_choices_are_completed() -> None:
    assert "--require" in complete("bash", "lipcert", "certify", "--re")
    assert complete("bash", "lipcert", "bound", "--norm", "l").split() == ["l1", "l2", "linf"]


@pytest.mark.parametrize(("option", "start", "right"), [("bound", "lips", "lipsdp"), ("certify", "cas", "cascade")])
def test_methods_are_completed(option: str, start: str, right: str) -> None:
    assert right in complete("bash", "lipcert", option, "--method", start).split()


@pytest.mark.parametrize(
    ("shell", "file"),
    [
        ("bash", ".bash_completions/lipcert.sh"),
        ("zsh", ".zfunc/_lipcert"),
        ("fish", ".config/fish/completions/lipcert.fish"),
    ],
)
def test_completion_is_installed(tmp_path: Path, shell: str, file: str) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    subprocess.run(
        [sys.executable, "-m", "lipcert", "--install-completion", shell],
        env=environment,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert "lipcert" in (tmp_path / file).read_text()


def test_all_methods_are_known_to_completion() -> None:
    assert tuple(method.name for method in METHODS) == completion.GLOBAL
    assert tuple(method.name for method in LOCAL_METHODS) == completion.LOCAL
    assert completion.several_of(completion.GLOBAL)("product,gersh") == ["product,gershgorin"]


# --- progress ---------------------------------------------------------------------------------------------------


def test_a_log_is_told_now_and_then_how_long_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    lines = Lines(lambda: now[0])
    for done in range(500, 1001, 10):  # 500 of an earlier run; ten in a second
        lines(done, 2000)
        now[0] += 1.0
    told = capsys.readouterr().err.splitlines()
    assert told == ["800 of 2,000 samples, 10/s, 2 min 0 s left"]


# --- Ctrl-C -----------------------------------------------------------------------------------------------------

RUN = ("certify", "digits.onnx", "--data", "test.npz", "--eps", "0.25", "--method", "product")


def let_ctrl_c_come(monkeypatch: pytest.MonkeyPatch, least: int) -> None:
    """Let Ctrl-C come when at least so many samples are done."""
    call = Tracker.__call__

    def press(self: Tracker, done: int, total: int) -> None:
        call(self, done, total)
        if done >= least:
            raise KeyboardInterrupt

    monkeypatch.setattr(Tracker, "__call__", press)


def test_what_was_done_is_kept_and_the_command_to_go_on_is_said(
    cli: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = json.loads(cli(*RUN, "--json").out)
    with monkeypatch.context() as patch:
        let_ctrl_c_come(patch, 30)
        found = cli(*RUN, "--batch-size", "15", "--report", "my report")
    assert found.code == 130
    assert found.out == ""
    assert found.err.count("\n") == 1
    assert "30 of 60 samples are done and kept, see 'my report/partial.html'" in found.err
    command = found.err.strip().partition("go on with: ")[2]
    assert command == f"lipcert {' '.join(RUN)} --batch-size 15 --report 'my report' --resume"
    lines = [json.loads(line) for line in (folder / "my report" / "records.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines if "index" in line] == list(range(30))
    partial = json.loads((folder / "my report" / "partial.json").read_text())
    assert (partial["samples"], partial["requirements"]) == (30, [])
    assert any("30 of 60 samples are missing" in note for note in partial["notes"])
    assert "30 of 60 samples are missing" in (folder / "my report" / "partial.html").read_text()
    assert not (folder / "my report" / "report.json").exists()
    resumed = cli(*shlex.split(command)[1:], "--json")
    assert resumed.code == 0, resumed.err
    for name in ("samples", "clean_count", "certified_count"):
        assert resumed.document[name] == whole[name]
    radius = resumed.document["mean_certified_radius"]
    assert radius == pytest.approx(whole["mean_certified_radius"], rel=1e-9), "batches of other sizes round otherwise"


def test_ctrl_c_without_a_report_says_what_would_have_kept_it(
    cli: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_ctrl_c_come(monkeypatch, 30)
    found = cli(*RUN, "--batch-size", "15")
    assert (found.code, found.out) == (130, "")
    assert "--report DIR" in found.err
    assert "go on with" not in found.err


def test_ctrl_c_before_the_first_sample(cli: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    let_ctrl_c_come(monkeypatch, 0)
    found = cli(*RUN, "--report", "r")
    assert (found.code, found.out) == (130, "")
    assert found.err.count("\n") == 1
    assert "interrupted" in found.err


# --- odd places ------------------------------------------------------------------------------------------------


def test_a_terminal_without_our_signs_and_json_that_is_utf_8_all_the_same(folder: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    (folder / "dígits.onnx").write_bytes((folder / "digits.onnx").read_bytes())
    command = (sys.executable, "-m", "lipcert", "inspect", "dígits.onnx")
    shown = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)
    assert b"d?gits.onnx" in shown.stdout
    shown = subprocess.run((*command, "--json"), cwd=folder, env=environment, capture_output=True, check=True)
    assert json.loads(shown.stdout.decode("utf-8"))["path"] == "dígits.onnx"


def test_a_second_run_in_the_same_folder_is_noticed(cli: Any, folder: Path) -> None:
    run = ("certify", "digits.onnx", "--data", "test.npz", "--eps", "0.5", "--method", "product", "--report", "r")
    assert "earlier run" not in cli(*run).err
    assert "hint: 'r' holds the records of an earlier run" in cli(*run).err
    assert "earlier run" not in cli(*run, "--resume").err


def test_a_narrow_terminal_cuts_no_number_off(cli: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lipcert.cli.show.WIDE", 40)
    outcome = cli("inspect", "digits.onnx")
    assert outcome.code == 0
    assert "…" not in outcome.out
    assert max(map(len, outcome.out.splitlines())) <= 40
