"""The public functions: load, bound, compare, certify, check, methods.

Nothing heavy is imported before it is needed: reading an ONNX file and checking a certificate need no torch.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeGuard

from lipcert.errors import InconclusiveError, UsageError
from lipcert.files import read_whole
from lipcert.proof.claims import Norm, Quantity, logit, margin

if TYPE_CHECKING:
    from torch import nn

    from lipcert.bounds.engine import Bound
    from lipcert.bounds.method import Method
    from lipcert.network.graph import Network
    from lipcert.proof.checker import Verdict
    from lipcert.proof.engines import Engine
    from lipcert.proof.local import LocalCertificate, Samples
    from lipcert.results import BallsInfo, BoundResult, CheckResult, CompareResult, Report
    from lipcert.robustness.requirements import Requirement

    Model = nn.Module | str | PathLike[str] | tuple[Any, str | PathLike[str]]  # what `load` reads

LOWER_SECONDS = 1.0  # time given to the search for a lower bound beside every upper bound


def load(
    model: Network | Model,
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
        InconclusiveError: the arithmetic of the process is not IEEE 754, so weights could be read as other numbers.
    """
    from lipcert.network import readers
    from lipcert.proof.environment import require_ieee
    from lipcert.proof.refusal import Refused

    try:
        require_ieee()
    except Refused as refusal:
        raise InconclusiveError(f"no network can be read: {refusal}") from None
    shape = None if input_shape is None else tuple(input_shape)
    return readers.load(model, input_shape=shape, mean=mean, std=std, allow_pickle=allow_pickle)


def bound(
    network: Network | Model,
    *,
    input_shape: Sequence[int] | None = None,
    method: str = "auto",
    norm: Norm = "l2",
    output: int | tuple[int, int] | Quantity = "output",
    time_limit: float | None = None,
    lower_seconds: float = LOWER_SECONDS,
) -> Bound:
    """Bound the Lipschitz constant of a network's output over all inputs.

    Args:
        network: from `load`, or a model that `load` reads, such as an ``nn.Module`` with its `input_shape`.
        input_shape: per-sample shape, where the model does not say it.
        method: name of a method (see `methods`), or ``auto``.
        norm: ``l1``, ``l2`` or ``linf``, on input and output.
        output: what is bounded: the whole ``"output"``, one logit ``8``, the difference of two ``(3, 8)``, all such
            differences at once, ``"margins"``, or the ``"features"`` before the last linear layer. Outputs are
            counted from 0; a last softmax is set aside for all but the whole.
        time_limit: seconds that an anytime method may use.
        lower_seconds: seconds for the lower bound that stands beside the bound; 0 for none.

    Level of the result: verified (its lower bound: estimate).

    Raises:
        UsageError: no such method, norm or output, or the method does not serve this network.
        InconclusiveError: nothing could be derived.
    """
    network = _network(network, input_shape)
    from lipcert.bounds import engine
    from lipcert.proof.subject import subject

    found = engine.bound(network, method, norm, quantity=_quantity(output), time_limit=time_limit)
    spoken = subject(network, found.certificate.claim.widest)
    return replace(found, lower=_lower(spoken, norm, lower_seconds))


def _quantity(output: int | tuple[int, int] | Quantity) -> Quantity:
    """Return the name of a quantity; an index out of range is found later, when the network is known."""
    if isinstance(output, str):
        return output
    match output:
        case int(i):
            return logit(i)
        case (int(i), int(j)):
            return margin(i, j)
    raise UsageError(f"{output!r} is no output: give an index, a pair of them, or a name")


def compare(
    network: Network | Model,
    *,
    input_shape: Sequence[int] | None = None,
    methods: Sequence[str] | str = "all",
    norm: Norm = "l2",
    time_limit: float | None = None,
    progress: Callable[[str], None] | None = None,
    so_far: Callable[[CompareResult], None] | None = None,
) -> CompareResult:
    """Bound a network by several methods and set them side by side.

    Args:
        network: from `load`, or a model that `load` reads, such as an ``nn.Module`` with its `input_shape`.
        input_shape: per-sample shape, where the model does not say it.
        methods: names, or ``all``.
        norm: ``l1``, ``l2`` or ``linf``.
        time_limit: seconds for each method.
        progress: called with the name of each method before it runs.
        so_far: called with the rows that are done after each method: what an interrupted comparison leaves.
    """
    network = _network(network, input_shape)
    from lipcert.bounds import documents, engine
    from lipcert.results import CompareResult

    start = time.perf_counter()
    names = engine.method_names(methods)  # before anything is computed
    lower = _lower(network, norm, LOWER_SECONDS)
    model = documents.model_info(network)
    rows: list[BoundResult] = []

    def result() -> CompareResult:
        seconds = time.perf_counter() - start
        return CompareResult(model=model, norm=norm, lower_bound=lower, rows=tuple(rows), seconds=seconds)

    for row in engine.compared(network, names, norm, time_limit=time_limit, progress=progress):
        rows.append(documents.row_result(network, row, norm, lower))
        if so_far is not None:
            so_far(result())
    return result()


def certify(
    network: Network | Model,
    data: Any,
    *,
    eps: float | Sequence[float],
    norm: Norm = "l2",
    input_shape: Sequence[int] | None = None,
    **settings: Any,
) -> Report:
    """Certify the predictions of a network on labelled data.

    Args:
        network: from `load`, or a model that `load` reads, such as an ``nn.Module`` in eval mode.
        data: the path of an ``.npz`` file, ``(images, labels)`` arrays, a torch ``DataLoader`` or ``Dataset``, or any
            other form that `lipcert.robustness.data.dataset.as_dataset` reads.
        eps: one radius or several, in raw input units.
        norm: norm of the ball.
        input_shape: per-sample shape, where the model does not say it and it is not that of the images.
        settings: see `lipcert.robustness.certifier.certify`.

    Level of the result: verified by default; said in the report.
    """
    from lipcert.robustness import certifier
    from lipcert.robustness.data.dataset import as_dataset

    if _is_network(network):
        known = network
    else:
        data = as_dataset(data, settings.pop("scale", None), settings.pop("limit", None))
        known = _network(network, input_shape, data.images.shape[1:])
    radii = [eps] if isinstance(eps, (int, float)) else eps
    return certifier.certify(known, data, eps=radii, norm=norm, **settings)


def check(
    certificate: str | PathLike[str],
    network: Network | Model,
    *,
    input_shape: Sequence[int] | None = None,
    engine: Engine = "float64",
    data: Any = None,
    scale: float | None = None,
    requirements: Sequence[str] = (),
    baseline: str | PathLike[str] | None = None,
) -> CheckResult:
    """Check whether a certificate file proves its claim about a network; imports no solver and no torch.

    Args:
        certificate: path of the file.
        network: from `load`, or a model that `load` reads, such as an ``nn.Module`` with its `input_shape`.
        input_shape: per-sample shape, where the model does not say it.
        engine: ``float64`` with a-priori error bounds, or ``exact``: ball arithmetic, for small to medium sizes.
        data: that a certificate of samples has to be about, see `lipcert.robustness.data.belonging.check_on`;
            needed where only their digest is stored with it.
        scale: factor on the numbers of `data`; default 1/255 for uint8, 1 for everything else.
        requirements: expressions about the ``bound`` that is claimed, such as ``"bound <= 1.05 * baseline"``.
        baseline: path of the JSON document of an earlier result, where a requirement speaks of it.

    Raises:
        UsageError: there is no such file or engine, the engine is not installed, a requirement cannot be read, the
            baseline does not have what it needs, or the data cannot be read or does not go with this certificate.
        CertificateError: the file is not a certificate.
    """
    from lipcert.proof.checker import check as verdict_of
    from lipcert.proof.local import LocalCertificate, any_certificate
    from lipcert.proof.statement import statement
    from lipcert.results import CheckResult, FileDigest
    from lipcert.robustness.baseline import bound_requirements

    start = time.perf_counter()
    content = read_whole(certificate, "certificate")  # once: the digest is that of the bytes that are checked
    loaded = any_certificate(content, str(certificate))
    network = _network(network, input_shape)
    bound: float | None
    quantity: Quantity | None
    required: tuple[Requirement, ...]
    samples: Samples | None = None
    if isinstance(loaded, LocalCertificate):
        if requirements or baseline is not None:
            raise UsageError("a certificate of samples claims no bound: nothing can be required of it")
        bound, quantity, required = None, None, ()
        verdict, samples = _check_samples(loaded, network, engine, data, scale)
    elif data is not None:
        raise UsageError("a certificate of a bound is about no samples: it takes no data")
    else:
        bound, quantity = loaded.claim.bound, loaded.claim.quantity
        required = bound_requirements(requirements, baseline, loaded.claim.norm, quantity)
        verdict = verdict_of(loaded, network, engine)
    proved = None if bound is None or not verdict.valid else Fraction(bound)
    return CheckResult(
        valid=verdict.valid,
        level=None if verdict.level is None else verdict.level.label,
        bound=bound if verdict.valid else None,
        norm=loaded.claim.norm,
        rule=loaded.rule,
        reason=verdict.text,
        code=verdict.reason.code,
        quantity=quantity if verdict.valid else None,
        balls=_balls(loaded, samples) if verdict.valid and isinstance(loaded, LocalCertificate) else None,
        engine=engine,
        statement=statement(network),
        certificate=FileDigest(path=str(certificate), sha256=hashlib.sha256(content).hexdigest()),
        model=FileDigest(path=network.source.path, sha256=network.source.sha256),
        requirements=tuple(requirement.judge(proved) for requirement in required),
        seconds=time.perf_counter() - start,
    )


def _check_samples(
    certificate: LocalCertificate, network: Network, engine: Engine, data: Any, scale: float | None
) -> tuple[Verdict, Samples | None]:
    """Return the verdict on a certificate of samples, and these; arguments as of `check`."""
    from lipcert.proof.local import check_local

    if data is None:
        return check_local(certificate, network, engine=engine), certificate.samples
    from lipcert.robustness.data.belonging import check_on

    return check_on(certificate, network, engine, data, scale)


def _balls(certificate: LocalCertificate, samples: Samples | None) -> BallsInfo:
    """Return what a valid certificate of samples claims."""
    from lipcert.results import BallsInfo

    assert samples is not None
    claim = certificate.claim
    return BallsInfo(eps=claim.eps, box=claim.box, samples=len(samples.labels), data_digest=claim.data_digest)


def methods() -> tuple[Method, ...]:
    """Return all methods with their name, summary, norms and cost."""
    from lipcert.bounds.registry import METHODS

    return METHODS


def _lower(network: Network, norm: Norm, seconds: float) -> float | None:
    if seconds <= 0:
        return None
    from lipcert.bounds.lower import lower_bound

    return lower_bound(network, norm, seconds=seconds).value


def _is_network(model: Network | Model) -> TypeGuard[Network]:
    from lipcert.network.graph import Network

    return isinstance(model, Network)


def _network(
    model: Network | Model, input_shape: Sequence[int] | None, images: tuple[int, ...] | None = None
) -> Network:
    """Return a network as it is, and read anything else; `images` is the shape of the data, where there are some."""
    if _is_network(model):
        return model
    if input_shape is None and images is not None and hasattr(model, "parameters"):
        input_shape = getattr(model, "input_shape", None) or _shape_for(model, images)
    return load(model, input_shape=input_shape)


def _shape_for(model: Any, images: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the shape in which a module in eval mode takes images; None where `load` will refuse the model."""
    from torch import nn

    from lipcert.network.readers.torch.shapes import shape_for_images

    if not isinstance(model, nn.Module):
        return None
    return images if any(part.training for part in model.modules()) else shape_for_images(model, images)
