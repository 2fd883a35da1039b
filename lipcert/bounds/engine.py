"""The certificate engine: ask a method, derive by its rule, return a bound with its certificate."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lipcert.bounds.effort import beyond_memory
from lipcert.bounds.margins import propose_margins
from lipcert.bounds.memory import PeakMemory
from lipcert.bounds.method import Method, Proposal, Solver, derive
from lipcert.bounds.registry import METHODS, choose_method, find_method
from lipcert.bounds.threads import suitable_threads
from lipcert.errors import InconclusiveError, LipcertError, UsageError
from lipcert.network.enclosure import Float
from lipcert.network.graph import Network
from lipcert.proof.certificate import Certificate
from lipcert.proof.claims import NORMS, Claim, Level, Norm, Quantity
from lipcert.proof.environment import require_ieee
from lipcert.proof.refusal import Refused
from lipcert.proof.rules import Derivation, Step
from lipcert.proof.subject import subject

if TYPE_CHECKING:
    from lipcert.results import BoundResult


@dataclass(frozen=True, repr=False)
class Bound:
    """An upper bound of a Lipschitz constant with everything that stands behind it.

    Attributes:
        value: the bound, derived by a rule with every rounding error counted; what the certificate claims. Of
            ``margins`` the largest.
        level: verified.
        norm, quantity: what is bounded (see `Claim`).
        method: the method that proposed the witness.
        seconds: proposal and derivation together.
        certificate: claim, digests, rule and witness.
        network: as read. subject: the normal form that the rule worked on.
        steps: how the bound grows from node to node, where the rule goes step by step.
        solver, notes: what the method said.
        lower: best lower bound found for the same constant (level estimate), or None where none was sought.
    """

    value: float
    level: Level
    norm: Norm
    quantity: Quantity
    method: str
    seconds: float
    certificate: Certificate
    network: Network
    subject: Network
    steps: tuple[Step, ...] = ()
    solver: Solver | None = None
    notes: tuple[str, ...] = ()
    lower: float | None = None

    @property
    def margins(self) -> Float | None:
        """(n, n) bounds of the margins f_i - f_j where they are what is bounded, else None."""
        table = self.certificate.claim.table
        return None if table is None else np.array(table)

    @property
    def ratio(self) -> float | None:
        """Bound over best lower bound: 1 is perfect."""
        return self.value / self.lower if self.lower else None

    @property
    def gap(self) -> float | None:
        """Relative distance from the best lower bound: ratio minus 1."""
        return self.ratio - 1.0 if self.ratio is not None else None

    @property
    def document(self) -> BoundResult:
        """The bound as a result document, without a path of the certificate."""
        from lipcert.bounds.documents import bound_result

        return bound_result(self.network, self)

    def plot(self) -> Any:
        """Return a matplotlib figure of what each layer contributes."""
        return self.document.plot()

    def to_pandas(self) -> Any:
        """Return a pandas data frame of one row; raises UsageError where pandas is not installed."""
        return self.document.to_pandas()

    def _repr_html_(self) -> str:
        return self.document._repr_html_()

    def __repr__(self) -> str:
        return f"<{self}>"

    def __str__(self) -> str:
        lower = "" if self.lower is None else f", lower bound {self.lower:.6g}"
        return f"{self.norm} bound {self.value!r} ({self.level.label}, {self.method}{lower})"


class NotServed(UsageError):
    """A method does not serve a network; `reason` says why, in one line."""

    def __init__(self, method: str, reason: str) -> None:
        super().__init__(f"the method '{method}' does not serve this: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class Row:
    """One line of a comparison: a bound, or why there is none.

    Attributes:
        error: begins with "refused" where the method was not run, with "failed" where it came to nothing.
        seconds: proposal and derivation together.
        memory: bytes of resident memory that the method needed in addition, None where not known (see `memory`).
    """

    method: str
    bound: Bound | None
    error: str | None
    seconds: float
    memory: int | None = None


def bound(
    network: Network,
    method: str = "auto",
    norm: Norm = "l2",
    *,
    quantity: Quantity = "output",
    time_limit: float | None = None,
) -> Bound:
    """Bound the Lipschitz constant of a network over all inputs.

    Args:
        network: as read; its normal form is bounded.
        method: name of a method, or ``auto``.
        norm: ``l1``, ``l2`` or ``linf``, on input and output.
        quantity: what of the network is bounded, see `Claim`.
        time_limit: seconds that an anytime method may use.

    Level of the result: verified.

    Raises:
        UsageError: no such method, norm or quantity, or the method does not serve this network.
        InconclusiveError: no rule could derive a bound from what the method proposed.
    """
    if norm not in NORMS:
        raise UsageError(f"there is no norm '{norm}': one of {', '.join(NORMS)}")
    try:
        normal = subject(network, quantity)
    except (Refused, ValueError) as refusal:
        raise UsageError(str(refusal)) from None
    if method == "auto":
        return _automatic(network, normal, norm, quantity, time_limit)
    chosen = find_method(method)
    reason = _refusal(chosen, normal, norm)
    if reason is not None:
        raise NotServed(chosen.name, reason)
    return _derive(network, normal, chosen, norm, quantity, time_limit)


def _automatic(network: Network, normal: Network, norm: Norm, quantity: Quantity, time_limit: float | None) -> Bound:
    """Bound by the method that `choose_method` takes; where it finds nothing, by the product, and say so."""
    chosen, product = choose_method(normal, norm, time_limit).method, find_method("product")
    try:
        found = _derive(network, normal, chosen, norm, quantity, time_limit)
    except InconclusiveError as error:
        if chosen is product:
            raise
        found = _derive(network, normal, product, norm, quantity, time_limit)
        return replace(found, notes=(*found.notes, f"'{chosen.name}' came to nothing: {error}"))
    if time_limit is None or chosen is not product or choose_method(normal, norm).method is product:
        return found
    note = f"the product of the norms: within a time limit of {time_limit:.3g} s nothing tighter is begun"
    return replace(found, notes=(*found.notes, note))


def compare(
    network: Network,
    methods: Sequence[str] | str = "all",
    norm: Norm = "l2",
    *,
    time_limit: float | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[Row]:
    """Bound the output by several methods; see `compared`."""
    return list(compared(network, methods, norm, time_limit=time_limit, progress=progress))


def compared(
    network: Network,
    methods: Sequence[str] | str = "all",
    norm: Norm = "l2",
    *,
    time_limit: float | None = None,
    progress: Callable[[str], None] | None = None,
) -> Iterator[Row]:
    """Yield bounds of the output by several methods, as they are found; one that fails gives a row with its reason.

    Args:
        network: as read.
        methods: names, or ``all`` for every method that exists.
        norm: on input and output.
        time_limit: seconds for each method.
        progress: called with the name of each method before it runs.
    """
    for name in method_names(methods):
        if progress is not None:
            progress(name)
        yield _row(network, name, norm, time_limit)


def method_names(methods: Sequence[str] | str) -> list[str]:
    """Return the names that a comparison runs; raises UsageError where there is no such method."""
    if methods == "all":
        return [method.name for method in METHODS]
    return [find_method(name).name for name in methods]


def _row(network: Network, name: str, norm: Norm, time_limit: float | None) -> Row:
    start, peak = time.perf_counter(), PeakMemory()
    try:
        found = bound(network, name, norm, time_limit=time_limit)
    except NotServed as error:
        return Row(name, None, f"refused: {error.reason}", time.perf_counter() - start)
    except LipcertError as error:
        return Row(name, None, f"failed: {error}", time.perf_counter() - start, peak.read())
    return Row(name, found, None, found.seconds, peak.read())


def _refusal(method: Method, normal: Network, norm: Norm) -> str | None:
    if norm not in method.norms:
        return f"it is for {', '.join(sorted(method.norms))}, not {norm}"
    return method.refuses(normal, norm) or beyond_memory(method.name, normal)


def _derive(
    network: Network, normal: Network, method: Method, norm: Norm, quantity: Quantity, time_limit: float | None
) -> Bound:
    start = time.perf_counter()
    try:
        require_ieee()
        with suitable_threads(normal):
            proposal = _propose(normal, method, norm, quantity, time_limit)
            proposal, derivation = derive(normal, norm, proposal)
    except Refused as refusal:
        raise InconclusiveError(f"no bound can be derived from what '{method.name}' proposed: {refusal}") from None
    claim = _claim(norm, quantity, derivation)
    return Bound(
        value=claim.bound,
        level=Level.VERIFIED,
        norm=norm,
        quantity=quantity,
        method=method.name,
        seconds=time.perf_counter() - start,
        certificate=Certificate.of(network, claim, proposal.rule, proposal.witness),
        network=network,
        subject=normal,
        steps=derivation.steps,
        solver=proposal.solver,
        notes=proposal.notes,
    )


def _propose(normal: Network, method: Method, norm: Norm, quantity: Quantity, time_limit: float | None) -> Proposal:
    if quantity == "margins":
        return propose_margins(normal, method, norm, time_limit)
    return method.propose(normal, norm, time_limit)


def _claim(norm: Norm, quantity: Quantity, derivation: Derivation) -> Claim:
    """Return what is claimed of what was derived."""
    if quantity != "margins" or derivation.margins is None:
        return Claim(norm, quantity, claimed(derivation.bound))
    table = tuple(tuple(map(claimed, row)) for row in derivation.margins.tolist())
    return Claim(norm, quantity, max(map(max, table)), table)


def claimed(derived: float) -> float:
    """Return what is claimed of a derived bound: the same or slightly more, with at most 40 bits.

    The last bits of long sums depend on the machine, and the claim has to be derived again on others. Numbers of up to
    24 bits are no long sums (1, a single float32 weight): they stay as they are, and so do those near overflow.
    """
    mantissa, exponent = math.frexp(derived)
    if (mantissa * 2**24).is_integer() or exponent > 1000:
        return derived
    return max(derived, math.ldexp(math.ceil(mantissa * (1.0 + 2.0**-46) * 2**40), exponent - 40))
