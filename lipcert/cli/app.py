"""The program ``lipcert``: its commands, and what becomes of errors.

Exit codes: 0 pass, 1 a requirement is not met, 2 usage or configuration, 3 a certificate is invalid, 4 the model
has something unsupported, 5 inconclusive; 70 a bug of lipcert itself, 130 interrupted, 141 the reader of the
output went away. An error is one line on stderr; ``LIPCERT_DEBUG=1`` adds the traceback.
"""

from __future__ import annotations

import os
import platform
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

import typer

from lipcert.cli import bound, certify, check, compare, config, doctor, inspect, report, show
from lipcert.cli.command import Interrupted
from lipcert.cli.once import OnceGroup
from lipcert.errors import InconclusiveError, LipcertError

COMMANDS = (inspect.COMMAND, bound.COMMAND, compare.COMMAND, certify.COMMAND, check.COMMAND, doctor.COMMAND)
BUG = 70  # EX_SOFTWARE
SHOWN = ("torch", "numpy", "onnx", "cvxpy")  # whose versions `--version` names

OVERVIEW = """\
lipcert computes Lipschitz bounds and robustness reports for trained networks, with proofs that can be re-checked.

  How much can the output move when the input moves?
      lipcert bound digits.onnx --out digits.lipcert

  For how many of my test samples is the prediction provably stable?
      lipcert certify digits.onnx --data test.npz --eps 0.5 --report report

  Does the proof still fit the model? (in CI: seconds, no solver)
      lipcert check digits.lipcert digits.onnx

They work as they stand in the folder examples/digits, with the network that is shipped there.
`lipcert --help` lists all commands, `lipcert COMMAND --help` their options.
"""


@runtime_checkable
class _Complaint(Protocol):
    """What the option parser raises when the command line is wrong."""

    exit_code: int

    def format_message(self) -> str: ...


def build() -> typer.Typer:
    """Return the program with all its commands."""
    app = typer.Typer(name="lipcert", cls=OnceGroup, add_completion=True, rich_markup_mode="rich")
    app.callback(invoke_without_command=True)(_root)
    for command in COMMANDS:
        command.register(app)
    report.register(app)
    return app


def main() -> None:
    """Run the program on the command line's arguments and leave with its exit code."""
    show.speak_any_tongue()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run the program; return the exit code. Errors become one line on stderr."""
    try:
        code = build()(list(arguments), prog_name="lipcert", standalone_mode=False) or 0
    except Exception as error:
        if os.environ.get("LIPCERT_DEBUG") == "1":
            traceback.print_exc()
        text, code = _explain(error)
        if isinstance(error, Interrupted) and error.resumable:
            text += f"; go on with: {_resumption(arguments)}"
        show.error(text)
    else:
        if code == Interrupted.exit_code:
            show.error("interrupted")
    return int(code)


def _root(
    context: typer.Context,
    config_file: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Settings file, instead of the one found.")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", metavar="", help="Print the version, and those of what it rests on.")
    ] = False,
) -> None:
    """Certified Lipschitz bounds and robustness reports for neural networks, with proofs to re-check."""
    if version:
        show.text(_versions())
        raise typer.Exit
    if context.invoked_subcommand is None:
        show.text(OVERVIEW)
        raise typer.Exit
    path = config_file if config_file is not None else config.find_settings(Path.cwd())
    if path is not None:
        context.obj = config.read_settings(path, COMMANDS)
        context.default_map = context.obj.values


def _versions() -> str:
    """Return the version and the environment, one per line."""
    from importlib.metadata import PackageNotFoundError, version

    lines = [f"lipcert {version('lipcert')}", f"python {platform.python_version()}"]
    for name in SHOWN:
        try:
            lines.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            lines.append(f"{name} not installed")
    return "".join(f"{line}\n" for line in (*lines, f"platform {platform.platform()}"))


def _resumption(arguments: Sequence[str]) -> str:
    """Return the command line that goes on where this one was stopped."""
    return shlex.join(["lipcert", *arguments, *([] if "--resume" in arguments else ["--resume"])])


def _explain(error: Exception) -> tuple[str, int]:
    """Return one line and the exit code for an error."""
    match error:
        case LipcertError():
            return str(error), error.exit_code
        case _Complaint():
            return _complaint(error), 2
        case MemoryError():
            return "out of memory: try a cheaper --method or a smaller --batch-size", InconclusiveError.exit_code
        case OSError():
            name = "" if error.filename is None else f" '{error.filename}'"
            return f"{error.strerror or error}{name}", 2
        case _:
            detail = f"{type(error).__name__}: {error}"
            return f"this is a bug in lipcert, please report it ({detail}); LIPCERT_DEBUG=1 shows where", BUG


def _complaint(error: Any) -> str:
    """Return the parser's message in our words, with the settings file where the value came from there."""
    text = str(error.format_message()).replace("Value error, ", "").rstrip(".")
    close = getattr(error, "possibilities", None)
    if close:
        text = f"{error.message.rstrip('.')}. Did you mean {', '.join(sorted(close))}?"
    text = text[:1].lower() + text[1:]
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    if context is not None and parameter is not None and context.obj is not None:
        source = context.get_parameter_source(parameter.name)
        if source is not None and source.name == "DEFAULT_MAP":
            text += f" (set in '{context.obj.path}')"
    text = text or "a command is missing"  # what the parser has to say is the help, which is shown
    help_of = context.command_path if context is not None else "lipcert"
    return f"{text} (see `{help_of} --help`)"
