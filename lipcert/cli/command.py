"""A command is a dataclass of options and a function of it; here they become a typer command.

Typer wants one parameter per option. Ours stand as annotated fields of frozen dataclasses, so that commands share
groups of them by inheritance and the settings file knows every name.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_type_hints

import typer


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: as typed.
        options: frozen dataclass whose fields are annotated with ``typer.Option`` or ``typer.Argument``.
        run: does the work; returns the exit code.
    """

    name: str
    options: type[Any]
    run: Callable[[Any], int]

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
                annotation=hints[field.name],
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
        app.command(self.name, help=inspect.getdoc(self.run))(call)
