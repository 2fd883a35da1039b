"""All methods, in the order in which `compare` shows them, and how `auto` chooses."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from lipcert.bounds.absolute import Absolute
from lipcert.bounds.method import Method
from lipcert.bounds.product import Product
from lipcert.errors import UsageError
from lipcert.network.graph import Network
from lipcert.proof.claims import Norm

METHODS: tuple[Method, ...] = (Product(), Absolute())


@dataclass(frozen=True)
class Choice:
    """Which method `auto` takes, and why."""

    method: Method
    reason: str


def find_method(name: str) -> Method:
    """Return the method of this name.

    Raises:
        UsageError: there is none; the nearest name is suggested.
    """
    for method in METHODS:
        if method.name == name:
            return method
    names = [method.name for method in METHODS]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(names)}"
    raise UsageError(f"there is no method '{name}': {hint}")


def choose_method(network: Network, norm: Norm, time_limit: float | None = None) -> Choice:
    """Return the method that `auto` would take for a normal form, without running it.

    ============  ==========  ===================================================
    norm          method      because
    ============  ==========  ===================================================
    l1, linf      absolute    never above the product of the norms, same cost
    l2            product     serves every network
    ============  ==========  ===================================================
    """
    if norm != "l2":
        return Choice(find_method("absolute"), "never above the product of the norms, at the cost of one pass")
    return Choice(find_method("product"), "serves every network")
