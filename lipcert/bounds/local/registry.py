"""All local methods, cheap ones first."""

from __future__ import annotations

from lipcert.bounds.local.anchored import Anchored, LocalLipSDP
from lipcert.bounds.local.branching import Branching
from lipcert.bounds.local.hopes import BEYOND
from lipcert.bounds.local.jacobian import JacobianBounds
from lipcert.bounds.local.method import AlphaCrown, Crown, Intervals, LocalMethod
from lipcert.bounds.local.pruned import PrunedCrown, PrunedIntervals
from lipcert.bounds.local.zonotope import ZonotopeBounds
from lipcert.errors import UsageError, suggestion

LOCAL_METHODS: tuple[LocalMethod, ...] = (
    Intervals(),
    ZonotopeBounds(),
    Crown(BEYOND),
    AlphaCrown(),
    PrunedIntervals(),
    PrunedCrown(),
    JacobianBounds(),
    Anchored(),
    LocalLipSDP(),
    Branching(),
)


def find_local(name: str) -> LocalMethod:
    """Return the local method of this name.

    Raises:
        UsageError: there is none; the nearest name is suggested.
    """
    for method in LOCAL_METHODS:
        if method.name == name:
            return method
    known = (method.name for method in LOCAL_METHODS)
    raise UsageError(f"there is no local method '{name}': {suggestion(name, known)}")
