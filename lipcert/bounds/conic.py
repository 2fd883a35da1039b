"""Conic solvers behind CVXPY: asked one after the other, and never believed.

A status word or an objective value is only passed on as a note. What counts is whether the variables hold finite
numbers; what those are worth, the caller finds out by arithmetic of its own.
"""

from __future__ import annotations

import importlib
import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LARGEST_CLARABEL = 1_200  # entries of the triangle of one matrix: its factors grow with the cube
TOLERANCE_CLARABEL = 1e-10
TOLERANCE_SCS = 1e-7
STEPS_SCS = 20_000
UNLIMITED = 1e9  # seconds


@dataclass(frozen=True)
class Attempt:
    """What came of asking the solvers.

    Attributes:
        solver: name of the one whose numbers stand in the variables, or None where none left any.
        status: its status word. value: the objective that it claims, NaN where it claims none.
        failures: one text for each solver that failed before it.
    """

    solver: str | None
    status: str
    value: float
    failures: tuple[str, ...]


@dataclass(frozen=True)
class Missing:
    """What a solver lacks, and what to do about it; both end a sentence."""

    detail: str
    remedy: str


def mosek_missing() -> Missing | None:
    """Return what MOSEK lacks, or None: it says so itself, asked for what semidefinite programs need."""
    try:
        mosek = importlib.import_module("mosek")
    except ImportError:
        return Missing("not installed", "pip install 'lipcert[mosek]' and get a licence")
    try:
        with mosek.Env() as environment:
            environment.checkoutlicense(mosek.feature.pton)
    except mosek.Error as error:
        said = " ".join(str(error).split()).rstrip(":")
        return Missing(
            f"installed, but has no licence ({said})",
            "put the licence at ~/mosek/mosek.lic or set MOSEKLM_LICENSE_FILE",
        )
    return None


def triangle(side: int) -> int:
    """Return the entries of one triangle of a symmetric matrix, with its diagonal."""
    return side * (side + 1) // 2


def solvers_for(entries: int, with_mosek: bool) -> tuple[str, ...]:
    """Return the solvers to ask, best first, for matrices of at most so many entries per triangle."""
    import cvxpy

    mosek = ("MOSEK",) if with_mosek and "MOSEK" in cvxpy.installed_solvers() else ()
    return (*mosek, *(("CLARABEL",) if entries <= LARGEST_CLARABEL else ()), "SCS")


def ask(problem: Any, solvers: Sequence[str], seconds: float) -> Attempt:
    """Ask solvers in turn until one leaves finite numbers in all variables of a CVXPY problem.

    seconds: for all of them together, counted from now. CVXPY's own preparation is not interrupted.
    """
    begin, failures = time.monotonic(), []
    for solver in solvers:
        left = seconds - (time.monotonic() - begin)
        if left <= 0:
            failures.append(f"{solver}: no time was left")
            continue
        try:
            with warnings.catch_warnings():  # about inaccurate solutions: none is believed
                warnings.simplefilter("ignore")
                problem.solve(solver=solver, **_options(solver, left))
        except Exception as error:  # a foreign solver may raise anything; it is reported, and the next one asked
            failures.append(f"{solver}: {(str(error).strip() or type(error).__name__).splitlines()[0]}")
            continue
        if all(v.value is not None and bool(np.isfinite(v.value).all()) for v in problem.variables()):
            value = math.nan if problem.value is None else float(problem.value)
            return Attempt(solver, str(problem.status), value, tuple(failures))
        failures.append(f"{solver}: status '{problem.status}', no finite numbers")
    return Attempt(None, "failed", math.nan, tuple(failures))


def _options(solver: str, seconds: float) -> dict[str, Any]:
    limit = min(seconds, UNLIMITED)
    if solver == "CLARABEL":
        gaps = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), TOLERANCE_CLARABEL)
        return {**gaps, "time_limit": limit, "max_threads": 1}
    if solver == "SCS":
        return {"eps_abs": TOLERANCE_SCS, "eps_rel": TOLERANCE_SCS, "max_iters": STEPS_SCS, "time_limit_secs": limit}
    return {"mosek_params": {"MSK_DPAR_OPTIMIZER_MAX_TIME": limit}}
