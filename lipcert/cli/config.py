"""Settings files: ``lipcert.toml``, or the table ``[tool.lipcert]`` of ``pyproject.toml``.

Keys are the long names of options (``time-limit`` or ``time_limit``). A key at the top holds for every
command that has such an option; a key in a table named after a command holds for that command only, and wins::

    norm = "l2"
    mean = [0.1307]

    [certify]
    eps = [0.1, "8/255"]
    require = ["certified_accuracy@0.1 >= 0.6"]

The file is looked for in the current folder and, inside a git repository, in the folders above up to the
repository's own; the nearest one counts alone. Outside a repository nothing above the current folder is read.
Paths in the file are relative to its folder. The command line beats the file, the file beats the defaults.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from lipcert.cli.command import Command
from lipcert.errors import UsageError, suggestion

Values = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Settings:
    """What a settings file says.

    Attributes:
        path: the file.
        values: for each command the values of its options, by field name.
    """

    path: Path
    values: Values


def find_settings(folder: Path) -> Path | None:
    """Return the settings file that holds in `folder`, or None.

    Raises:
        UsageError: a folder has two of them, or a file cannot be read.
    """
    for place in _places(folder.resolve()):
        own, project = place / "lipcert.toml", place / "pyproject.toml"
        in_project = project.is_file() and "lipcert" in _parse(project).get("tool", {})
        if own.is_file() and in_project:
            both = f"'{own}' and [tool.lipcert] of '{project}'"
            raise UsageError(f"settings stand in both {both}: keep one of them")
        if own.is_file():
            return own
        if in_project:
            return project
    return None


def read_settings(path: Path, commands: Sequence[Command]) -> Settings:
    """Read a settings file for the commands that exist.

    Raises:
        UsageError: the file cannot be read, is not TOML, or has a key that is no option.
    """
    table = _parse(path)
    if path.name == "pyproject.toml":
        table = table.get("tool", {}).get("lipcert", {})
    options = {command.name: _options(command) for command in commands}
    everything = {name for known in options.values() for name in known}
    values: Values = {name: {} for name in options}
    for key, value in table.items():
        if key in options:
            if not isinstance(value, Mapping):
                raise UsageError(f"'{key}' in '{path}' is a table: write [{key}] and its settings below it")
            continue
        name = _known(key, everything | set(options), path, "")
        for command, known in options.items():
            if name in known:
                values[command][name] = _adapt(value, known[name], path.parent)
    for command, known in options.items():
        for key, value in table.get(command, {}).items():
            name = _known(key, set(known), path, f" for '{command}'")
            values[command][name] = _adapt(value, known[name], path.parent)
    return Settings(path, values)


def _places(folder: Path) -> Iterator[Path]:
    """Yield the folder and those above it up to the one that holds ``.git``; alone where there is none."""
    chain = [folder, *folder.parents]
    root = next((position for position, place in enumerate(chain) if (place / ".git").exists()), 0)
    yield from chain[: root + 1]


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the settings '{path}': {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"'{path}' is not a TOML file: {error}") from None


def _options(command: Command) -> dict[str, Any]:
    """Return the options of a command with their types; MODEL and CERT belong to the command line."""
    hints = get_type_hints(command.options)
    return {name: kind for name, kind in hints.items() if name not in ("model", "cert")}


def _known(key: str, names: set[str], path: Path, scope: str) -> str:
    name = key.replace("-", "_")
    if name in names:
        return name
    hint = suggestion(name.replace("_", "-"), sorted(known.replace("_", "-") for known in names))
    raise UsageError(f"unknown setting '{key}'{scope} in '{path}': {hint}")


def _adapt(value: Any, kind: Any, folder: Path) -> Any:
    """Bring a TOML value into the form that the command line would give."""
    if _allows(kind, list):
        return [str(item) for item in (value if isinstance(value, list) else [value])]
    if _allows(kind, Path) and isinstance(value, str):
        return folder / value
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    return value


def _allows(kind: Any, wanted: type) -> bool:
    """Whether an option's type is `wanted`, a container of that kind, or a union that has it."""
    parts = get_args(kind)
    return kind is wanted or get_origin(kind) is wanted or any(_allows(part, wanted) for part in parts)
