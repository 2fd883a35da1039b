"""What every method must pass: bounds never below the truth, laws of scale and order, certificates that check.

    from lipcert.testing import check_method
    check_method(MyMethod())

Failures raise AssertionError with the method, the network and both numbers. There is no slack on the unsafe side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from lipcert.bounds.method import Method, Proposal, derive
from lipcert.errors import InconclusiveError
from lipcert.network.enclosure import Float
from lipcert.network.graph import Network
from lipcert.proof.certificate import Certificate
from lipcert.proof.checker import check
from lipcert.proof.claims import NORMS, Claim, Norm
from lipcert.proof.subject import subject
from lipcert.testing.laws import laws
from lipcert.testing.truth import jacobians_of, lower_bound
from lipcert.testing.zoo import zoo

LOWERED = 1.0 - 1e-3  # a claim lowered by this factor must be rejected
ORDER_SLACK = 1e-6  # relative, for `check_order`


@dataclass(frozen=True)
class Outcome:
    """What a method achieves on one network: its bound in one norm, and the proposal behind it."""

    bound: float
    proposal: Proposal


def check_method(method: Method) -> None:
    """Check a method on the whole zoo, in every norm that it serves.

    * It refuses with a text, or its proposal derives a bound.
    * No bound is below a true lower bound; for small ReLU networks that is the exact constant.
    * The laws of `lipcert.testing.laws` hold.
    * Certificates survive the way through bytes, are accepted, and rejected with a lower claim.

    Raises:
        AssertionError: the first thing that is wrong, in one line.
    """
    _check_card(method)
    for norm in sorted(method.norms):
        served = [name for name in zoo() if _check_network(method, norm, name)]
        _require(bool(served), method, norm, "it serves no network of the zoo")
        for law in laws():
            breach = law.breach(_serving(method, norm))
            _require(breach is None, method, norm, str(breach))
    _check_time_limit(method)


def check_order(tighter: Method, looser: Method, norm: Norm) -> None:
    """Check that one method's bound is never above another's, by more than 1e-6 relative, where both serve.

    Bounds of networks that are constant are left out: there rounding up is all that is left of them.

    Raises:
        AssertionError: it is, or there is nothing to compare.
    """
    compared = 0
    for name in zoo():
        first, second = _zoo_outcome(tighter, norm, name), _zoo_outcome(looser, norm, name)
        if first is None or second is None or lower_bound(norm, _jacobians(name)) == 0.0:
            continue
        compared += 1
        text = f"{first.bound!r} on '{name}' is above the {second.bound!r} of {looser.name}"
        _require(first.bound <= second.bound * (1.0 + ORDER_SLACK), tighter, norm, text)
    _require(compared > 0, tighter, norm, f"there is nothing to compare with {looser.name}")


def bound_of(method: Method, network: Network, norm: Norm) -> Outcome | None:
    """Return what a method achieves on a network as read, or None where it refuses.

    Raises:
        AssertionError: it refuses without a line of text, or says that it serves the network and then does not.
    """
    normal = subject(network, "output")
    reason = method.refuses(normal, norm)
    if reason is not None:
        _require(bool(reason.strip()) and "\n" not in reason, method, norm, "a refusal is one line of text")
        return None
    try:
        proposal, derivation = derive(normal, norm, method.propose(normal, norm, None))
        return Outcome(derivation.bound, proposal)
    except Exception as error:
        raise AssertionError(f"{method.name}, {norm}: it says that it serves the network, and then: {error}") from error


def _require(condition: bool, method: Method, norm: str, message: str) -> None:
    if not condition:
        raise AssertionError(f"{method.name}, {norm}: {message}")


def _check_card(method: Method) -> None:
    """The name can be typed, and everything is described."""
    _require(method.name == method.name.strip().lower() and bool(method.name), method, "-", "the name is not plain")
    _require(bool(method.summary) and bool(method.cost), method, "-", "summary or cost is missing")
    _require(bool(method.norms) and method.norms <= set(NORMS), method, "-", "the norms are not those of lipcert")


@cache
def _zoo_outcome(method: Method, norm: Norm, name: str) -> Outcome | None:
    try:
        return bound_of(method, zoo()[name], norm)
    except AssertionError as error:
        raise AssertionError(f"{error} (network '{name}')") from error


@cache
def _jacobians(name: str) -> list[Float]:
    return jacobians_of(zoo()[name])


def _check_network(method: Method, norm: Norm, name: str) -> bool:
    """Check one network; return whether the method serves it."""
    outcome = _zoo_outcome(method, norm, name)
    if outcome is None:
        return False
    truth = lower_bound(norm, _jacobians(name))
    _require(math.isfinite(outcome.bound), method, norm, f"{outcome.bound} is no bound for '{name}'")
    _require(
        outcome.bound >= truth, method, norm, f"{outcome.bound!r} is below the true constant {truth!r} of '{name}'"
    )
    _check_certificate(method, norm, name, outcome)
    return True


def _check_certificate(method: Method, norm: Norm, name: str, outcome: Outcome) -> None:
    network, proposal = zoo()[name], outcome.proposal

    def verdict(bound: float) -> bool:
        claim = Claim(norm, "output", bound)
        certificate = Certificate.of(network, claim, proposal.rule, proposal.witness)
        return check(Certificate.from_bytes(certificate.to_bytes()), network).valid

    _require(verdict(outcome.bound), method, norm, f"the checker rejects the certificate of '{name}'")
    if outcome.bound > 0.0:
        lowered = verdict(outcome.bound * LOWERED)
        _require(not lowered, method, norm, f"the checker accepts too low a claim for '{name}'")


def _serving(method: Method, norm: Norm) -> Callable[[Network], tuple[float, str] | None]:
    """Return a function from networks to (bound, rule), or None where the method refuses."""

    def serve(network: Network) -> tuple[float, str] | None:
        outcome = bound_of(method, network, norm)
        return None if outcome is None else (outcome.bound, outcome.proposal.rule)

    return serve


def _check_time_limit(method: Method) -> None:
    """With no time at all a method still proposes something that derives, or says that it could not."""
    norm = min(method.norms)
    for network in zoo().values():
        normal = subject(network, "output")
        if method.refuses(normal, norm) is None:
            try:
                proposal = method.propose(normal, norm, 0.0)
            except InconclusiveError:
                return
            derive(normal, norm, proposal)
            return
