"""Reading and writing files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lipcert.errors import UsageError


def read_whole(path: str | os.PathLike[str], what: str) -> bytes:
    """Return a file's bytes; `what` names the file in the error.

    Raises:
        UsageError: the file cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the {what} '{path}': {error.strerror}") from None


@contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` that replaces it on success and vanishes on failure.

    Raises:
        UsageError: the folder cannot be written to.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise UsageError(f"cannot write '{path}': {error.strerror}") from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
