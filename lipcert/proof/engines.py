"""The engines of the checker: the same rules in two arithmetics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from lipcert.errors import UsageError
from lipcert.proof.rules import RULES, Rule

Engine = Literal["float64", "exact"]
ENGINES: tuple[Engine, ...] = get_args(Engine)


def rules_of(engine: Engine) -> Mapping[str, Rule]:
    """Return the rules by id: ``float64`` with a-priori error bounds, or ``exact`` in ball arithmetic.

    Raises:
        UsageError: there is no such engine, or python-flint is not installed.
    """
    if engine == "float64":
        return RULES
    if engine != "exact":
        raise UsageError(f"there is no engine '{engine}': one of {', '.join(ENGINES)}")
    try:
        from lipcert.proof import exact
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "flint":
            raise
        raise UsageError("the exact engine needs python-flint: pip install 'lipcert[exact]'") from None
    return exact.RULES
