"""Shares of time: what a busy machine makes of them, and what a method does within them. Clocks are fakes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from benchmarks.networks import open_bare
from lipcert.bounds import compositional
from lipcert.bounds.allowance import Allowance, Phase
from lipcert.bounds.compositional import Compositional
from lipcert.bounds.cutting import Tool
from lipcert.bounds.eclipse_fast import EclipseFast
from lipcert.bounds.effort import Effort
from lipcert.bounds.engine import bound
from lipcert.bounds.method import Proposal
from lipcert.bounds.product import Product
from lipcert.network import Network
from lipcert.network.operators import Softmax
from lipcert.proof.checker import check
from lipcert.proof.claims import Norm
from lipcert.proof.rules import RULES
from lipcert.proof.subject import subject
from lipcert.testing.build import RELU, chain, dense, matrices


@dataclass
class Fake:
    """A machine that takes `slowdown` seconds on the wall for one of work."""

    slowdown: float = 1.0
    now: float = 100.0
    spent: float = 7.0

    def work(self, seconds: float) -> None:
        self.spent += seconds
        self.now += self.slowdown * seconds

    def phase(self) -> Phase:
        return Phase(lambda: self.now, lambda: self.spent)


def test_work_is_what_a_busy_machine_leaves() -> None:
    fake = Fake(slowdown=4.0)
    limited = Allowance(10.0, True, fake.phase())
    assert (limited.left, limited.work) == (10.0, 10.0)  # nothing is known yet
    fake.work(0.5)
    assert (limited.left, limited.work, limited.phase.slowdown) == (8.0, 2.0, 4.0)
    assert limited.affords(2.0)
    assert not limited.affords(2.1)
    assert limited.less(3.0).left == 5.0
    assert limited.part(0.25).left == 2.0
    assert limited.spares(7.9)
    assert not limited.spares(8.0)
    fake.work(5.0)
    assert limited.left == limited.work == 0.0
    assert not limited.spares(0.0)


def test_more_threads_than_one_are_no_speed_and_without_a_limit_nothing_ends() -> None:
    fake = Fake(slowdown=0.5)
    phase = fake.phase()
    fake.work(4.0)
    assert phase.slowdown == 1.0
    plan = Allowance(1.0, False, phase)
    assert plan.left == plan.work == 0.0
    assert plan.affords(1e9)
    assert plan.spares(1e9)
    assert Allowance.of(None, 5.0).is_limit is False
    assert Allowance.of(3.0, 5.0).is_limit


class Slow(EclipseFast):
    """The closed form, with seconds of work on a fake machine; counts what it is asked."""

    name: ClassVar[str] = "slow"

    def __init__(self, fake: Fake, seconds: float) -> None:
        self.fake, self.seconds, self.asked = fake, seconds, list[float | None]()

    def propose(self, network: Network, norm: Norm, time_limit: float | None) -> Proposal:
        self.asked.append(time_limit)
        self.fake.work(self.seconds)
        return super().propose(network, norm, time_limit)


class Timed(Product):
    """The product, with a second of work: from it a phase learns how busy the machine is."""

    def __init__(self, fake: Fake) -> None:
        self.fake = fake

    def propose(self, network: Network, norm: Norm, time_limit: float | None) -> Proposal:
        self.fake.work(1.0)
        return super().propose(network, norm, time_limit)


A, B, C, D, E, F = (dense(w) for w in matrices(1, 4, 6, 6, 6, 6, 6, 3))
TWO_STRETCHES = chain((4,), A, RELU, B, RELU, C, Softmax(0), D, RELU, E, RELU, F)


def run(monkeypatch: pytest.MonkeyPatch, fake: Fake, seconds: float, limit: float | None) -> tuple[Proposal, Slow]:
    """Return what is proposed with a tool that is said to need a second for a stretch and takes `seconds`."""
    monkeypatch.setattr(compositional, "Allowance", FakeAllowance(fake))
    slow = Slow(fake, seconds)
    method = Compositional(
        (Tool(slow, 2.0, lambda _: Effort(1.0, 0.0)), Tool(Timed(fake), 0.0, lambda _: Effort(0.0, 0.0)))
    )
    return method.propose(subject(TWO_STRETCHES, "output"), "l2", limit), slow


@dataclass
class FakeAllowance:
    """Makes allowances on a fake machine."""

    fake: Fake

    def of(self, time_limit: float | None, otherwise: float) -> Allowance:
        seconds = otherwise if time_limit is None else time_limit
        return Allowance(seconds, time_limit is not None, self.fake.phase())


def derived(proposal: Proposal) -> float:
    return RULES[proposal.rule].derive(subject(TWO_STRETCHES, "output"), "l2", proposal.witness).bound


def test_a_busy_machine_is_given_less_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet, slow = run(monkeypatch, Fake(), 1.0, 40.0)
    assert len(slow.asked) == 2
    assert not any("too short" in note for note in quiet.notes)
    fake = Fake(slowdown=8.0)
    busy, slow = run(monkeypatch, fake, 1.0, 40.0)
    assert slow.asked == []
    (note,) = (note for note in busy.notes if "too short" in note)
    assert "the 40 s for this bound" in note
    assert "8.0 times its processor time" in note
    plain = derived(Product().propose(subject(TWO_STRETCHES, "output"), "l2", None))
    assert derived(quiet) < derived(busy) == plain


def test_a_tool_that_takes_longer_than_it_said_is_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake()
    found, slow = run(monkeypatch, fake, 60.0, 40.0)
    assert len(slow.asked) == 1
    assert slow.asked[0] is not None
    assert 0.0 < slow.asked[0] < 20.0
    assert fake.now - 100.0 < 40.0 + 60.0
    assert any("too short" in note for note in found.notes)
    assert derived(found) == derived(Product().propose(subject(TWO_STRETCHES, "output"), "l2", None))


def test_one_tool_in_time_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is ready counts, although the next one is late."""
    found, slow = run(monkeypatch, Fake(), 20.0, 40.0)
    assert len(slow.asked) == 2
    plain, best = (
        derived(p)
        for p in (
            Product().propose(subject(TWO_STRETCHES, "output"), "l2", None),
            run(monkeypatch, Fake(), 20.0, None)[0],
        )
    )
    assert best < derived(found) < plain
    assert sum("by slow" in note for note in found.notes) == 1


def test_without_a_limit_every_tool_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    found, slow = run(monkeypatch, Fake(slowdown=8.0), 200.0, None)
    assert len(slow.asked) >= 2
    assert sum("by slow" in note for note in found.notes) == 2


def test_auto_says_that_there_was_no_time() -> None:
    found = bound(TWO_STRETCHES, time_limit=0.0)
    assert found.value == bound(TWO_STRETCHES, "product").value
    (note,) = (note for note in found.notes if "time limit" in note)
    assert note == "the product of the norms: within a time limit of 0 s nothing tighter is begun"
    assert not any("time limit" in note for note in bound(TWO_STRETCHES, "product", time_limit=0.0).notes)


def test_a_share_of_time_is_kept_on_a_real_network(shared_data: Path) -> None:
    """Six seconds, a tenth of a minute; it took 26 before on a machine that others used too."""
    network = open_bare(shared_data, "models/vnncomp2021/resnet_2b.onnx")
    began = time.monotonic()
    found = bound(network, quantity="features", time_limit=6.0)
    assert time.monotonic() - began <= 9.0
    assert found.value <= bound(network, "product", quantity="features").value * (1 + 2**-50)
    assert found.certificate.rule == "product/v1" or check(found.certificate, network).valid
