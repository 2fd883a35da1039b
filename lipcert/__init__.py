"""lipcert: certified Lipschitz bounds and robustness reports for neural networks.

The public functions are loaded when first used, so that ``import lipcert`` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lipcert.api import bound, certify, check, compare, load, methods
    from lipcert.errors import LipcertError

__all__ = ["LipcertError", "__version__", "bound", "certify", "check", "compare", "load", "methods"]

_HOMES = dict.fromkeys(("bound", "certify", "check", "compare", "load", "methods"), "lipcert.api")
_HOMES["LipcertError"] = "lipcert.errors"


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("lipcert")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'lipcert' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
