"""What this installation can do: arithmetic, solvers and licences, devices, software."""

from __future__ import annotations

import importlib
import os
import platform
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from lipcert.errors import LipcertError
from lipcert.proof.environment import require_ieee
from lipcert.proof.refusal import Refused
from lipcert.results import DoctorResult, Finding

SOFTWARE = ("numpy", "scipy", "torch", "cvxpy", "onnx", "safetensors")
SOLVERS = ("CLARABEL", "SCS")


def diagnose() -> DoctorResult:
    """Look at everything; something broken is a finding, never an exception."""
    looks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _arithmetic,
        _checker,
        _methods,
        _solvers,
        _mosek,
        _devices,
        _software,
    )
    findings = tuple(finding for look in looks for finding in look())
    return DoctorResult(healthy=all(finding.status != "broken" for finding in findings), findings=findings)


def _arithmetic() -> Iterator[Finding]:
    try:
        require_ieee()
    except (Refused, LipcertError) as error:
        remedy = "unset flush-to-zero and fast-math settings of this process"
        yield Finding(topic="arithmetic", name="float64", status="broken", detail=str(error), remedy=remedy)
        return
    detail = "IEEE 754 binary64, rounding to nearest, subnormal numbers kept"
    yield Finding(topic="arithmetic", name="float64", status="ok", detail=detail)


def _checker() -> Iterator[Finding]:
    yield _package("checker", "python-flint", "exact", "pip install 'lipcert[exact]' for a second, exact engine")


def _methods() -> Iterator[Finding]:
    from lipcert import api

    for method in api.methods():
        detail = f"{method.summary} ({', '.join(sorted(method.norms))}); {method.cost}"
        yield Finding(topic="method", name=method.name, status="ok", detail=detail)
    from lipcert.bounds.local.registry import LOCAL_METHODS

    for local in LOCAL_METHODS:
        detail = f"around samples: {local.summary} ({', '.join(sorted(local.norms))}); {local.cost}"
        yield Finding(topic="method", name=local.name, status="ok", detail=detail)


def _solvers() -> Iterator[Finding]:
    try:
        installed = set(importlib.import_module("cvxpy").installed_solvers())
    except ImportError as error:
        remedy = "pip install cvxpy"
        yield Finding(topic="solver", name="cvxpy", status="broken", detail=str(error), remedy=remedy)
        return
    for name in SOLVERS:
        if name in installed:
            yield Finding(topic="solver", name=name, status="ok", detail=_version(name.lower()) or "installed")
        else:
            remedy = f"pip install {name.lower()}"
            yield Finding(topic="solver", name=name, status="broken", detail="not installed", remedy=remedy)


def _mosek() -> Iterator[Finding]:
    from lipcert.bounds.conic import mosek_missing

    missing = mosek_missing()
    if missing is not None:
        remedy = f"optional: {missing.remedy}"
        yield Finding(topic="solver", name="MOSEK", status="absent", detail=missing.detail, remedy=remedy)
        return
    yield Finding(topic="solver", name="MOSEK", status="ok", detail=f"{_version('mosek')}, with a licence")


def _devices() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        remedy = "pip install torch"
        yield Finding(topic="device", name="torch", status="broken", detail=str(error), remedy=remedy)
        return
    threads = f"{cores} cores for this process, torch uses {torch.get_num_threads()} threads"
    yield Finding(topic="device", name="cpu", status="ok", detail=f"{platform.machine()}, {threads}")
    if not torch.cuda.is_available():
        yield Finding(topic="device", name="cuda", status="absent", detail="no GPU that torch can use")
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        detail = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        yield Finding(topic="device", name=f"cuda:{index}", status="ok", detail=detail)


def _software() -> Iterator[Finding]:
    python = f"{platform.python_implementation()} {platform.python_version()} on {platform.platform()}"
    yield Finding(topic="software", name="python", status="ok", detail=python)
    for name in SOFTWARE:
        yield _package("software", name, None, f"pip install {name}")
    yield Finding(topic="software", name="blas", status="ok", detail=_blas())


def _package(topic: Literal["checker", "software"], name: str, extra: str | None, remedy: str) -> Finding:
    found = _version(name)
    if found is not None:
        return Finding(topic=topic, name=name, status="ok", detail=found)
    status: Literal["absent", "broken"] = "broken" if extra is None else "absent"
    return Finding(topic=topic, name=name, status=status, detail="not installed", remedy=remedy)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _blas() -> str:
    import numpy as np

    built = np.show_config(mode="dicts")
    blas = {} if built is None else built.get("Build Dependencies", {}).get("blas", {})
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()
