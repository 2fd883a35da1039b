"""What tab completes where an option takes names. The registries are not asked: importing them takes seconds."""

from __future__ import annotations

from collections.abc import Callable

GLOBAL = (
    "product",
    "absolute",
    "lip-lt",
    "gershgorin",
    "eclipse-fast",
    "eclipse",
    "lipsdp",
    "lipsdp-conv",
    "lipsdp-cvxpy",
    "lipsdp-layer",
    "compositional",
)
LOCAL = (
    "intervals",
    "zonotope",
    "crown",
    "alpha-crown",
    "pruned",
    "pruned-crown",
    "jacobian",
    "anchored",
    "local-lipsdp",
    "branching",
)
"""The names of all methods, as the registries have them; a test compares."""

BOUND = ("auto", *GLOBAL)
CERTIFY = ("cascade", "global", *LOCAL, *GLOBAL)


def one_of(names: tuple[str, ...]) -> Callable[[str], list[str]]:
    """Return what completes one name."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete


def several_of(names: tuple[str, ...]) -> Callable[[str], list[str]]:
    """Return what completes the last of several names between commas."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in names if name.startswith(last)]

    return complete
