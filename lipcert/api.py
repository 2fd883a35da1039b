"""The public functions: load, bound, compare, certify, check, methods.

Nothing heavy is imported before it is needed: reading an ONNX file and checking a certificate need no torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any

from lipcert.proof.claims import Norm

if TYPE_CHECKING:
    from lipcert.bounds.engine import Bound
    from lipcert.bounds.method import Method
    from lipcert.network.graph import Network
    from lipcert.results import CheckResult, CompareResult, Report

LOWER_SECONDS = 2.0  # time given to the search for a lower bound beside every upper bound


def load(
    model: Any,
    *,
    input_shape: Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    allow_pickle: bool = False,
) -> Network:
    """Read a network.

    Args:
        model: path of an ``.onnx`` or ``.pt2`` file, an ``nn.Module`` in eval mode (with `input_shape`), or
            ``("package.module:factory", "weights.safetensors")``.
        input_shape: per-sample shape, where the model does not say it.
        mean, std: normalisation ``(x - mean) / std`` per channel, in raw input units; becomes part of the network.
        allow_pickle: whether full pickles may be read; they can execute code.

    Raises:
        UsageError: the file is missing, damaged or inconsistent.
        UnsupportedError: parts of the model have no sound rule; all are listed.
    """
    from lipcert.network import readers

    shape = None if input_shape is None else tuple(input_shape)
    return readers.load(model, input_shape=shape, mean=mean, std=std, allow_pickle=allow_pickle)


def bound(
    network: Network,
    *,
    method: str = "auto",
    norm: Norm = "l2",
    time_limit: float | None = None,
    lower_seconds: float = LOWER_SECONDS,
) -> Bound:
    """Bound the Lipschitz constant of a network's output over all inputs.

    Args:
        network: from `load`.
        method: name of a method (see `methods`), or ``auto``.
        norm: ``l1``, ``l2`` or ``linf``, on input and output.
        time_limit: seconds that an anytime method may use.
        lower_seconds: seconds for the lower bound that stands beside the bound; 0 for none.

    Level of the result: verified (its lower bound: estimate).

    Raises:
        UsageError: no such method or norm, or the method does not serve this network.
        InconclusiveError: nothing could be derived.
    """
    from lipcert.bounds import engine

    found = engine.bound(network, method, norm, time_limit=time_limit)
    return replace(found, lower=_lower(network, norm, lower_seconds))


def compare(
    network: Network,
    *,
    methods: Sequence[str] | str = "all",
    norm: Norm = "l2",
    time_limit: float | None = None,
    progress: Callable[[str], None] | None = None,
) -> CompareResult:
    """Bound a network by several methods and set them side by side.

    Args:
        network: from `load`.
        methods: names, or ``all``.
        norm: ``l1``, ``l2`` or ``linf``.
        time_limit: seconds for each method.
        progress: called with the name of each method before it runs.
    """
    from lipcert.bounds import documents, engine
    from lipcert.results import CompareResult

    start = time.perf_counter()
    lower = _lower(network, norm, LOWER_SECONDS)
    rows = engine.compare(network, methods, norm, time_limit=time_limit, progress=progress)
    return CompareResult(
        model=documents.model_info(network),
        norm=norm,
        lower_bound=lower,
        rows=tuple(documents.row_result(network, row, norm, lower) for row in rows),
        seconds=time.perf_counter() - start,
    )


def certify(network: Network, data: Any, *, eps: Sequence[float], norm: Norm = "l2", **settings: Any) -> Report:
    """Certify the predictions of a network on labelled data.

    Args:
        network: from `load`.
        data: a `lipcert.robustness.data.Dataset`, the path of an ``.npz`` file, or ``(images, labels)`` arrays.
        eps: radii, in raw input units.
        norm: norm of the ball.
        settings: see `lipcert.robustness.certifier.certify`.

    Level of the result: verified by default; said in the report.
    """
    from lipcert.robustness import certifier

    return certifier.certify(network, data, eps=eps, norm=norm, **settings)


def check(certificate: str | PathLike[str], network: Network) -> CheckResult:
    """Check whether a certificate file proves its claim about a network; imports no solver and no torch.

    Raises:
        UsageError: there is no such file.
        CertificateError: the file is not a certificate.
    """
    from lipcert.proof.certificate import Certificate
    from lipcert.proof.checker import check as verdict_of
    from lipcert.results import CheckResult

    start = time.perf_counter()
    loaded = Certificate.load(certificate)
    verdict = verdict_of(loaded, network)
    return CheckResult(
        valid=verdict.valid,
        level=None if verdict.level is None else verdict.level.label,
        bound=loaded.claim.bound if verdict.valid else None,
        norm=loaded.claim.norm,
        rule=loaded.rule,
        reason=verdict.text,
        seconds=time.perf_counter() - start,
    )


def methods() -> tuple[Method, ...]:
    """Return all methods with their name, summary, norms and cost."""
    from lipcert.bounds.registry import METHODS

    return METHODS


def _lower(network: Network, norm: Norm, seconds: float) -> float | None:
    if seconds <= 0:
        return None
    from lipcert.bounds.lower import lower_bound

    return lower_bound(network, norm, seconds=seconds).value
