"""Finding the function that builds a module: by an importable name, or in a Python file. Its code is executed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lipcert.errors import UsageError
from lipcert.network.readers.torch.weights import first_line


def find_factory(text: str) -> Callable[[], Any]:
    """Return the callable that ``"package.module:name"`` or ``"path/to/file.py:name"`` means.

    Raises:
        UsageError: there is none.
    """
    place, _, name = text.rpartition(":")
    if not place or not name:
        raise UsageError(f"'{text}' is no factory; write 'package.module:name' or 'path/to/file.py:name'")
    module = _module_of_file(Path(place)) if place.endswith(".py") else _module_of_name(place)
    found = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise UsageError(f"'{place}' has no callable '{name}'")
    return found  # type: ignore[no-any-return]


def _module_of_name(name: str) -> Any:
    try:
        with _importing_from(Path.cwd()):
            return importlib.import_module(name)
    except Exception as error:
        raise UsageError(f"cannot import '{name}': {type(error).__name__}: {first_line(error)}") from None


def _module_of_file(path: Path) -> Any:
    if not path.is_file():
        raise UsageError(f"there is no file '{path}'")
    name = f"lipcert_factory_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up
    try:
        with _importing_from(path.parent.resolve()):
            spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UsageError(f"'{path}' cannot be run: {type(error).__name__}: {first_line(error)}") from None
    return module


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Let imports find modules in a folder too, behind all other places."""
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
