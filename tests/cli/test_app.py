"""The program as a whole: what errors become, what help costs, how options are misspelt."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lipcert import api
from lipcert.errors import (
    CertificateError,
    InconclusiveError,
    LipcertError,
    Unsupported,
    UnsupportedError,
    UsageError,
)


def fail_with(error: BaseException) -> Any:
    def load(*_: Any, **__: Any) -> Any:
        raise error

    return load


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("no such file"), 2),
        (CertificateError("broken"), 3),
        (UnsupportedError([Unsupported("n1", "Loop", "no rule"), Unsupported("n2", "If", "no rule")]), 4),
        (InconclusiveError("no time"), 5),
        (MemoryError(), 5),
        (FileNotFoundError(2, "No such file or directory", "x.onnx"), 2),
        (ZeroDivisionError("inside"), 70),
        (KeyboardInterrupt(), 130),
    ],
)
@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_errors_are_one_line_and_have_their_code(
    cli: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, flags: tuple[str, ...]
) -> None:
    monkeypatch.setattr(api, "load", fail_with(error))
    found = cli("bound", "m.onnx", *flags)
    assert found.code == code
    assert found.out == ""
    assert found.err.startswith("lipcert: error: ")
    assert found.err.count("\n") == 1
    assert "Traceback" not in found.err


def test_all_unsupported_parts_are_named(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [Unsupported("n1", "Loop", "no rule"), Unsupported("n2", "If", "no rule")]
    monkeypatch.setattr(api, "load", fail_with(UnsupportedError(parts)))
    found = cli("bound", "m.onnx")
    assert all(word in found.err for word in ("n1", "Loop", "n2", "If"))


def test_a_message_of_many_lines_is_told_in_one(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "load", fail_with(UsageError("first\n  second")))
    assert cli("bound", "m.onnx").err == "lipcert: error: first second\n"


def test_debugging_adds_the_traceback(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "load", fail_with(UsageError("wrong")))
    monkeypatch.setenv("LIPCERT_DEBUG", "1")
    found = cli("bound", "m.onnx")
    assert found.code == 2
    assert "Traceback" in found.err
    assert found.err.endswith("lipcert: error: wrong\n")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("bond", "m"), "Did you mean 'bound'?"),
        (("bound", "m", "--nrom", "l2"), "Did you mean --norm?"),
        (("bound", "m", "--norm", "l3"), "'l1', 'l2', 'linf'"),
        (("bound",), "missing argument"),
        (("certify", "m", "--data", "d.npz"), "missing option '--eps'"),
        (("bound", "m", "--time-limit", "-1"), "--time-limit"),
        (("bound", "m", "extra"), "extra"),
        (("bound", "m", "--input-shape", "1,a"), "is not a shape"),
        (("bound", "m", "--mean", "0.1;0.2"), "is not a number"),
    ],
)
def test_a_wrong_command_line_is_told_what_is_right(cli: Any, arguments: tuple[str, ...], hint: str) -> None:
    found = cli(*arguments)
    assert found.code == 2
    assert found.out == ""
    assert hint in found.err
    assert found.err.count("\n") == 1


def test_a_misspelt_method_is_corrected(cli: Any, loaded: Any) -> None:
    found = cli("bound", "m", "--method", "prodcut")
    assert found.code == 2
    assert "did you mean 'product'?" in found.err


def test_alone_it_shows_three_examples(cli: Any) -> None:
    found = cli()
    assert found.code == 0
    assert sum(line.startswith("      lipcert ") for line in found.out.splitlines()) == 3


def test_version(cli: Any) -> None:
    import lipcert

    lines = cli("--version").out.splitlines()
    assert lines[0] == f"lipcert {lipcert.__version__}"
    assert [line.split()[0] for line in lines[1:]] == ["python", "torch", "numpy", "onnx", "cvxpy", "platform"]


def run_python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("arguments", [["--help"], ["certify", "--help"], []])
def test_help_imports_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    code = (
        "import sys\nfrom lipcert.cli import app\n"
        f"assert app.run({arguments!r}) == 0\n"
        "heavy = {'torch', 'cvxpy', 'numpy', 'scipy', 'onnx', 'jinja2', 'matplotlib', 'lipcert.results'}\n"
        "sys.exit('imported: ' + ' '.join(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)\n"
    )
    found = run_python(code, tmp_path)
    assert found.returncode == 0, found.stderr
    assert "lipcert" in found.stdout


def test_as_a_module_it_is_the_same_program(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "lipcert", "bound", "nothing.onnx"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 2
    assert found.stderr.count("\n") == 1
    assert "nothing.onnx" in found.stderr


@pytest.mark.parametrize("arguments", [[], ["--version"], ["doctor"], ["doctor", "--json"]])
def test_a_closed_pipe_is_no_error_of_ours(tmp_path: Path, arguments: list[str]) -> None:
    code = (
        "import os, sys\nfrom lipcert.cli import app\n"
        "read, write = os.pipe(); os.close(read); os.dup2(write, 1)\n"
        f"sys.exit(app.run({arguments!r}))\n"
    )
    found = run_python(code, tmp_path)
    assert found.returncode == 141
    assert found.stderr == ""


def test_every_error_has_its_own_exit_code() -> None:
    kinds = (UsageError, CertificateError, UnsupportedError, InconclusiveError)
    codes = [kind.exit_code for kind in kinds]
    assert codes == [2, 3, 4, 5]
    assert all(issubclass(kind, LipcertError) for kind in kinds)
