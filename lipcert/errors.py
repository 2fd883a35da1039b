"""What can go wrong, each with the exit code that the command line gives it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


def one_line(text: object) -> str:
    """Return a text as one printable line: what comes from a file may hold anything, bytes that are no text too."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(str(text).split()))


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that a misspelt one most likely stands for, or None where none is near."""
    near = difflib.get_close_matches(name.lower(), list(known), n=1)
    return near[0] if near else None


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return what to write instead of a name that is not known: the nearest one, or where none is near, all."""
    names = list(known)
    near = nearest(name, names)
    if near is not None:
        return f"did you mean '{near}'?"
    return f"there {'is only' if len(names) == 1 else 'are'} {', '.join(names)}"


class LipcertError(Exception):
    """Base of every error that lipcert raises on purpose.

    The message is one printable line for a person: what is wrong, where, and what to do.
    """

    exit_code = 2

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(message))


class UsageError(LipcertError):
    """The call, the data or the configuration is wrong (exit code 2)."""

    exit_code = 2


class CertificateError(LipcertError):
    """A certificate is invalid or does not belong to the model (exit code 3)."""

    exit_code = 3


@dataclass(frozen=True)
class Unsupported:
    """One thing in a model that lipcert has no sound rule for.

    Attributes:
        where: name of the node in the model's own words.
        what: the operator or setting.
        why: what is missing, and what to do where something can be done.
    """

    where: str
    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what} at '{self.where}': {self.why}"


class UnsupportedError(LipcertError):
    """The model has parts that lipcert does not support; all of them are listed (exit code 4)."""

    exit_code = 4

    def __init__(self, items: Sequence[Unsupported]) -> None:
        self.items = tuple(items)
        listed = "; ".join(str(item) for item in self.items)
        super().__init__(f"{len(self.items)} unsupported part(s) in the model: {listed}")


class InconclusiveError(LipcertError):
    """Nothing could be computed at the level asked for (exit code 5)."""

    exit_code = 5
