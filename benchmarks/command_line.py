"""The options of every command as tables, from the program itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import typer

from benchmarks.pages import table
from lipcert.cli.app import build


def options_table() -> str:
    """Return the options of every command, a table each; groups that several commands have in common come last."""
    program: Any = typer.main.get_command(build())
    commands = {"lipcert": program, **dict(leaves("lipcert", program))}
    users: dict[str, list[str]] = {}
    for title, command in commands.items():
        for panel in dict.fromkeys(_panel(p) for p in command.params):
            users.setdefault(panel, []).append(title)
    common = {panel: titles for panel, titles in users.items() if panel and len(titles) > 1}
    parts = []
    for title, command in commands.items():
        summary = "" if command is program else command.help or ""
        parts.append(_section(title, summary, [p for p in command.params if _panel(p) not in common]))
    for panel, titles in common.items():
        names = ", ".join(f"`{title}`" for title in titles)
        parts.append(_section(f"{panel} options", f"Of {names}.", _together(panel, [commands[t] for t in titles])))
    return "\n\n".join(parts)


def leaves(title: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Yield the commands that do something, with what is typed to reach them."""
    for name, child in getattr(command, "commands", {}).items():
        if getattr(child, "commands", None):
            yield from leaves(f"{title} {name}", child)
        else:
            yield f"{title} {name}", child


def _panel(parameter: Any) -> str:
    return "" if parameter.param_type_name == "argument" else parameter.rich_help_panel or ""


def _together(panel: str, commands: list[Any]) -> list[Any]:
    """Return the options of a panel, each once."""
    found = {
        parameter.name: parameter for command in commands for parameter in command.params if _panel(parameter) == panel
    }
    return list(found.values())


def _section(title: str, summary: str, parameters: list[Any]) -> str:
    shown = [p for p in parameters if not p.hidden and p.name != "help"]
    rows = []
    for parameter in sorted(shown, key=lambda p: p.param_type_name != "argument"):
        default = "required" if parameter.required else _default(parameter.default)
        rows.append([_spelling(parameter), " ".join((parameter.help or "").split()), default])
    parts = [f"### {title}", " ".join(summary.split("\n\n")[0].split())]
    if rows:
        parts.append(table(["option", "what it does", "default"], rows))
    return "\n\n".join(part for part in parts if part)


def _spelling(parameter: Any) -> str:
    """Return an option as it is typed, with its value."""
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar or parameter.name.upper()}`"
    choices = next((get_args(t) for t in _types(parameter) if get_origin(t) is Literal), None)
    flag = getattr(parameter, "is_flag", False)
    value = "" if flag else "|".join(choices) if choices else parameter.metavar or parameter.name.upper()
    return f"`{', '.join(parameter.opts)}{' ' + value if value else ''}`"


def _types(parameter: Any) -> tuple[Any, ...]:
    annotation = parameter.type_descriptor.annotation
    return (annotation, *get_args(annotation))


def _default(value: Any) -> str:
    return "–" if value in (None, False, ()) else f"`{value}`"
