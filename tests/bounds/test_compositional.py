"""The compositional method: its plan, its search, and what it proposes when its tools fail."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import lower_bound_by_sampling, networks

from benchmarks.networks import open_bare
from lipcert.bounds.allowance import Allowance
from lipcert.bounds.compositional import BYTES, Compositional
from lipcert.bounds.cut_search import search_places
from lipcert.bounds.cutting import Planner, Section, Tool, weight_of_joints
from lipcert.bounds.eclipse_fast import EclipseFast
from lipcert.bounds.effort import MOST_BYTES, Effort, beyond_memory, group_widths, joint, layerwise, nothing
from lipcert.bounds.engine import bound
from lipcert.bounds.lipsdp.method import LipSdp
from lipcert.bounds.method import Proposal
from lipcert.bounds.product import Product
from lipcert.bounds.registry import COMPOSITIONAL, choose_method
from lipcert.errors import InconclusiveError, UsageError
from lipcert.network import Network
from lipcert.network.cut import stretch
from lipcert.network.operators import Elementwise, MaxPool, Softmax, Sort
from lipcert.proof.checker import check
from lipcert.proof.claims import Norm
from lipcert.proof.inequality import assemble, grouping
from lipcert.proof.lifted import lift
from lipcert.proof.rules import RULES
from lipcert.proof.subject import subject
from lipcert.testing.build import RELU, chain, conv, dense, matrices, mlp
from lipcert.testing.truth import jacobians_of, lower_bound
from lipcert.testing.zoo import zoo

FAST = Tool(EclipseFast(), 2.0, layerwise)
PLAIN = Tool(Product(), 0.0, nothing)
TWO = (FAST, PLAIN)
DEEP = subject(mlp(matrices(3, *[6, 8, 8, 8, 8, 8, 3])), "output")
AMPLE = Effort(60.0, BYTES)


def derived(network: Network, proposal: Proposal) -> float:
    return RULES[proposal.rule].derive(network, "l2", proposal.witness).bound


def planned(network: Network, limits: Effort = AMPLE, tools: tuple[Tool, ...] = TWO) -> tuple[Section, ...]:
    return Planner(network, "l2", tools, limits).plan()


# --- bounds --------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(networks(), st.integers(0, 99))
def test_between_a_jacobian_and_the_product(network: Network, seed: int) -> None:
    normal = subject(network, "output")
    found = derived(normal, Compositional(TWO).propose(normal, "l2", None))
    product = derived(normal, Product().propose(normal, "l2", None))
    assert lower_bound_by_sampling(network, "l2", np.random.default_rng(seed), 6) <= found
    assert found <= product * (1 + 2**-50)


A, B, C, D = (dense(w) for w in matrices(1, 4, 6, 6, 6, 3))
POOL = MaxPool((2, 2), (1, 1), ((0, 0),) * 2, (1, 1))
GROUPS: dict[str, Network] = {
    "softmax": chain((4,), A, RELU, B, RELU, D, Softmax(0)),
    "log-softmax": chain((4,), A, RELU, D, Softmax(0, log=True)),
    "sorting": chain((4,), A, RELU, B, Sort(), C, RELU, D),
    "max pooling": chain(
        (1, 6, 6), conv(1, (2, 1, 3, 3)), RELU, conv(2, (2, 2, 2, 2)), RELU, POOL, conv(3, (2, 2, 2, 2))
    ),
}


@pytest.mark.parametrize("name", GROUPS)
def test_networks_with_group_activations_get_less_than_the_product(name: str) -> None:
    network = GROUPS[name]
    product, found = bound(network, "product"), bound(network, "compositional")
    assert lower_bound("l2", jacobians_of(network)) <= found.value < 0.97 * product.value
    assert check(found.certificate, network).valid
    assert found.certificate.rule == "stretches/v1"
    assert [step.cumulative for step in found.steps][-1] <= found.value
    assert any("by lipsdp" in note for note in found.notes)
    choice = choose_method(subject(network, "output"), "l2")
    assert choice.method is COMPOSITIONAL
    assert "lipsdp" in choice.reason


def test_without_a_cut_the_method_itself_is_proposed() -> None:
    whole, alone = COMPOSITIONAL.propose(DEEP, "l2", None), LipSdp().propose(DEEP, "l2", None)
    assert whole.rule == alone.rule == "multipliers/v1"
    assert derived(DEEP, whole) == derived(DEEP, alone)


def test_without_time_it_is_the_product() -> None:
    network = subject(GROUPS["softmax"], "output")
    assert derived(network, COMPOSITIONAL.propose(network, "l2", 0.0)) == derived(
        network, Product().propose(network, "l2", None)
    )
    assert choose_method(network, "l2", 0.0).method.name == "product"


def test_an_input_alone() -> None:
    alone = subject(zoo()["identity"], "output")
    assert derived(alone, COMPOSITIONAL.propose(alone, "l2", None)) == 1.0


# --- tools that fail -----------------------------------------------------------------------------------------


class Wrong(EclipseFast):
    """A solver that is wrong in one way."""

    name: ClassVar[str] = "wrong"

    def __init__(self, way: str) -> None:
        self.way = way

    def propose(self, network: Network, norm: Norm, time_limit: float | None) -> Proposal:
        found = super().propose(network, norm, time_limit)
        witness = {name: np.array(array) for name, array in found.witness.items()}
        match self.way:
            case "too good":
                witness["inverse_square"] *= 2.0
            case "infeasible":
                witness["multipliers"] *= -1.0
            case "NaN":
                witness["multipliers"][0] = np.nan
            case "poor":
                witness["inverse_square"] *= 1e-6
            case _:
                raise InconclusiveError("nothing came of it")
        return Proposal(found.rule, witness)


@pytest.mark.parametrize("way", ["too good", "infeasible", "NaN", "poor", "nothing"])
def test_a_solver_that_is_wrong_costs_tightness_only(way: str) -> None:
    network = GROUPS["softmax"]
    normal = subject(network, "output")
    product = derived(normal, Product().propose(normal, "l2", None))
    alone = derived(normal, Compositional((Tool(Wrong(way), 2.0, layerwise), PLAIN)).propose(normal, "l2", None))
    assert alone == product
    with_fast = Compositional((Tool(Wrong(way), 3.0, layerwise), *TWO)).propose(normal, "l2", None)
    found = derived(normal, with_fast)
    assert lower_bound("l2", jacobians_of(network)) <= found <= product
    if way != "poor":  # it came to nothing, so the next tool was asked
        assert found == derived(normal, Compositional(TWO).propose(normal, "l2", None))


# --- plans ---------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(networks(), st.floats(0, 1e-6), st.floats(0, 1e6))
def test_plans_keep_their_limits_and_cover_the_network(network: Network, seconds: float, size: float) -> None:
    normal = subject(network, "output")
    if len(normal.nodes) == 1:
        return
    sections = planned(normal, Effort(seconds, size))
    assert [s.start for s in sections] == [0, *(s.end for s in sections[:-1])]
    assert sections[-1].end == len(normal.nodes) - 1
    assert sum(s.effort.seconds for s in sections) <= seconds
    assert all(s.effort.bytes <= size and s.tools[-1] is PLAIN for s in sections)


def test_less_memory_means_more_cuts() -> None:
    counts = [len(planned(DEEP, Effort(60.0, share * layerwise(DEEP).bytes))) for share in (1.0, 0.7, 0.4)]
    assert counts[0] == 1 < counts[1] <= counts[2]
    tight = Planner(DEEP, "l2", TWO, Effort(60.0, 0.7 * layerwise(DEEP).bytes))
    (reason,) = tight.reasons()
    assert "eclipse-fast" in reason
    assert "cut to stay within" in reason
    assert not list(Planner(DEEP, "l2", TWO, AMPLE).reasons())


def test_cuts_fall_where_the_network_is_narrow() -> None:
    network = subject(mlp(matrices(1, 9, 12, 2, 12, 12, 3)), "output")
    whole = layerwise(network).bytes
    first, *_ = planned(network, Effort(60.0, 0.9 * whole))
    assert network.nodes[first.end].size == 2
    assert isinstance(network.nodes[first.end].op, Elementwise)


def test_affine_layers_alone_have_no_joints() -> None:
    network = subject(chain((1, 6, 6), conv(1, (2, 1, 3, 3)), RELU), "output")
    assert weight_of_joints(network, 0, len(network.nodes) - 1) == 0
    assert [s.gains for s in planned(network)] == [False]


def test_very_deep_networks_are_planned_over_few_places() -> None:
    network = subject(mlp(matrices(1, *[5] * 60)), "output")
    planner = Planner(network, "l2", TWO, AMPLE)
    assert 10 < len(planner.places) < 32
    assert len(planner.plan()) == 1


@settings(max_examples=60, deadline=None)
@given(networks(("dense", "relu", "elementwise", "residual", "concat", "scale")))
def test_group_widths_are_those_of_the_proof(network: Network) -> None:
    """Up to activations with fixed slopes, which are no blocks there."""
    normal = subject(network, "output")
    lifted = lift(normal)
    if len(lifted.blocks) != sum(isinstance(node.op, Elementwise) for node in normal.nodes):
        return
    blocks = assemble(lifted, [np.ones(block.size) for block in lifted.blocks])
    needed = grouping(blocks, lifted.sizes).widths
    # the estimate takes every product of slopes for one that is not zero, which only joins groups
    assert sum(needed) == sum(group_widths(normal))
    assert sum(n**3 for n in needed) <= sum(n**3 for n in group_widths(normal))


def test_group_widths_of_a_chain_are_its_layers() -> None:
    assert group_widths(DEEP) == (6, 8, 8, 8, 8, 8)
    assert joint(DEEP).seconds > layerwise(DEEP).seconds > 0


# --- the search of places ------------------------------------------------------------------------------------


def test_the_search_never_makes_the_closed_form_worse() -> None:
    limits = Effort(60.0, 0.5 * layerwise(DEEP).bytes)
    planner = Planner(DEEP, "l2", TWO, limits)
    before = planner.plan()
    after = search_places(planner, before, FAST, Allowance(60.0, False))

    def product_of(sections: Sequence[Section]) -> float:
        pieces = [stretch(DEEP, s.start, s.end) for s in sections]
        assert all(layerwise(piece).bytes <= limits.bytes for piece in pieces)
        return float(np.prod([derived(piece, EclipseFast().propose(piece, "l2", None)) for piece in pieces]))

    assert [s.start for s in after] == [0, *(s.end for s in after[:-1])]
    assert len(after) > 1
    assert product_of(after) <= product_of(before)


def test_the_search_leaves_plans_alone_without_time() -> None:
    planner = Planner(DEEP, "l2", TWO, Effort(60.0, 0.5 * layerwise(DEEP).bytes))
    assert search_places(planner, planner.plan(), FAST, Allowance(0.0, False)) == list(planner.plan())


# --- memory --------------------------------------------------------------------------------------------------


def test_nothing_above_eight_gibibytes_is_started() -> None:
    """Two convolutions with few numbers, whose inequality would fill 27 GiB."""
    layer = conv(1, (1, 1, 3), padding=((1, 1),))
    network = chain((1, 11_000), layer, RELU, layer)
    normal = subject(network, "output")
    assert layerwise(normal).bytes > MOST_BYTES > BYTES
    assert beyond_memory("product", normal) is None
    with pytest.raises(
        UsageError, match=r"'eclipse-fast' does not serve this: it would need about 27 GiB \(8 at most\)"
    ):
        bound(network, "eclipse-fast")
    planner = Planner(normal, "l2", TWO, AMPLE)
    assert not any(section.gains for section in planner.plan())
    (reason,) = planner.reasons()
    assert "27.0 GiB: cut to stay within 60 s and 4.0 GiB" in reason


# --- a real network ------------------------------------------------------------------------------------------


def test_a_softmax_network_gets_less_than_the_product(shared_data: Path) -> None:
    network = open_bare(shared_data, "models/marabou/softmax-last-layer.onnx")
    found = bound(network, "compositional")
    stretch_bounds = [step.factor for step in found.steps]
    assert found.value <= 0.75 * bound(network, "product").value
    assert len(stretch_bounds) == 2
    assert stretch_bounds[1] == 0.5
    assert check(found.certificate, network).valid
