"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lipcert.errors import UsageError

if TYPE_CHECKING:
    from lipcert.network.graph import Network

Norm = Literal["l1", "l2", "linf"]
_MODEL = "Model"
_OUTPUT = "Output"


@dataclass(frozen=True, kw_only=True)
class Output:
    """How a command speaks."""

    json: Annotated[
        bool, typer.Option("--json", help="One JSON document on stdout and nothing else.", rich_help_panel=_OUTPUT)
    ] = False
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress and no remarks on stderr.", rich_help_panel=_OUTPUT)
    ] = False


@dataclass(frozen=True, kw_only=True)
class Model(Output):
    """Which model, and what it does not say of itself."""

    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="An .onnx or .pt2 file, or package.module:factory@weights."),
    ]
    input_shape: Annotated[
        str | None,
        typer.Option(metavar="C,H,W", help="Shape of one sample.", rich_help_panel=_MODEL),
    ] = None
    mean: Annotated[
        str | None,
        typer.Option(
            metavar="M,..",
            help="Normalise inputs: subtract, per channel; becomes part of the network.",
            rich_help_panel=_MODEL,
        ),
    ] = None
    std: Annotated[
        str | None,
        typer.Option(
            metavar="S,..",
            help="Normalise inputs: divide by, per channel; becomes part of the network.",
            rich_help_panel=_MODEL,
        ),
    ] = None
    allow_pickle: Annotated[
        bool,
        typer.Option("--allow-pickle", help="Read full pickles; they can run code.", rich_help_panel=_MODEL),
    ] = False

    def read(self) -> Network:
        """Read the model.

        Raises:
            UsageError: the file or an option is wrong.
            UnsupportedError: parts of the model have no sound rule.
        """
        from lipcert import api

        if "@" in self.model and "" not in sys.path:
            sys.path.insert(0, "")  # a factory may stand in the current folder, as for `python -m lipcert`
        return api.load(
            self.model,
            input_shape=None if self.input_shape is None else shape(self.input_shape, "--input-shape"),
            mean=None if self.mean is None else reals(self.mean, "--mean"),
            std=None if self.std is None else reals(self.std, "--std"),
            allow_pickle=self.allow_pickle,
        )


def real(text: str, option: str) -> float:
    """Read ``0.5``, ``1e-3`` or a quotient such as ``8/255`` as the nearest float64.

    Raises:
        UsageError: it is none of these.
    """
    try:
        value = float(Fraction(text)) if "/" in text else float(text)
    except (ValueError, ZeroDivisionError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"'{text}' in {option} is not a number: write 0.5 or 8/255")
    return value


def reals(text: str, option: str) -> list[float]:
    """Read numbers separated by commas; raises UsageError."""
    return [real(part.strip(), option) for part in text.split(",")]


def require_folder(path: Path | None, option: str) -> None:
    """Make sure that a file can be written later; raises UsageError."""
    if path is not None and not path.parent.is_dir():
        raise UsageError(f"the folder '{path.parent}' of {option} '{path}' does not exist: make it first")
    if path is not None:
        require_writable(path.parent, option)


def require_writable(folder: Path, option: str) -> None:
    """Make sure that files can be made in a folder that is there; raises UsageError."""
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"the folder '{folder}' cannot be written to: give {option} another place")


def shape(text: str, option: str) -> list[int]:
    """Read ``1,28,28`` or ``1x28x28``; raises UsageError."""
    parts = text.replace("x", ",").split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"'{text}' in {option} is not a shape: write 1,28,28")
    return [int(part) for part in parts]
