"""A command is a dataclass of options and a function of it; here they become a typer command.

Typer wants one parameter per option. Ours stand as annotated fields of frozen dataclasses, so that commands share
groups of them by inheritance and the settings file knows every name.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_type_hints

import typer
from typer.models import OptionInfo

from lipcert.cli.once import OnceCommand
from lipcert.errors import LipcertError

EXAMPLES = "Example, in the folder examples/digits:"


class Interrupted(LipcertError):
    """The user stopped the command; `resumable` where ``--resume`` goes on with what is kept."""

    exit_code = 130  # 128 + SIGINT

    def __init__(self, message: str, *, resumable: bool) -> None:
        super().__init__(message)
        self.resumable = resumable


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: as typed.
        options: frozen dataclass whose fields are annotated with ``typer.Option`` or ``typer.Argument``.
        run: does the work; returns the exit code.
        examples: command lines that work, one after the other, in the folder of the shipped example.
    """

    name: str
    options: type[Any]
    run: Callable[[Any], int]
    examples: tuple[str, ...] = ()

    def parameters(self) -> list[inspect.Parameter]:
        """Return the parameters that typer sees: the command's own ones first, then those it inherits."""
        hints = get_type_hints(self.options, include_extras=True)
        own = inspect.get_annotations(self.options)
        ordered = sorted(dataclasses.fields(self.options), key=lambda field: field.name not in own)
        return [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default,
                annotation=_flag(hints[field.name]),
            )
            for field in ordered
        ]

    def register(self, app: typer.Typer) -> None:
        """Add the command to `app`; its help is the docstring of `run`."""

        def call(**values: Any) -> None:
            raise typer.Exit(self.run(self.options(**values)))

        parameters = self.parameters()
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        epilog = "\n\n".join((EXAMPLES, *self.examples)) if self.examples else None
        app.command(self.name, cls=OnceCommand, help=inspect.getdoc(self.run), epilog=epilog)(call)


def _flag(annotation: Any) -> Any:
    """Return an annotation whose option, where it is a flag, shows no value in the help: it takes none."""
    kind, *rest = get_args(annotation)
    if kind is not bool:
        return annotation
    shown = [copy.copy(part) for part in rest]
    for part in shown:
        if isinstance(part, OptionInfo):
            part.metavar = ""
    return Annotated[kind, *shown]
