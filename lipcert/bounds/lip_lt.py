r"""`lip-lt`: the loop transformation, for networks too large for multipliers of every neuron.

The rule (`proof.rules.lip_lt`) leaves the centres m of the slopes free. Two choices are tried where they differ:

* the middle of each neuron's slopes: linear neurons then count as what they are;
* the middle of the hull of a layer's slopes: never above the product of the norms, on chains and sums.

Neither is ever below `lipsdp`, in exact arithmetic. In the primal of the multiplier theorem xi is a random vector
with E (dv - alpha dz)(dv - beta dz) <= 0 for each neuron. Its slopes lie within [m - p, m + p], so E dw^2 <= E dz^2
for dw = (dv - m dz) / p (S-lemma), and Minkowski's inequality for the norms sqrt(E |.|^2) walks through the
recursion of the rule: sqrt(E |dy|^2) <= g sqrt(E |dx|^2). Where p is the same throughout each layer it is enough
that E |dw|^2 <= E |dz|^2 layer by layer, so `lip-lt` is not below `lipsdp-layer` either.
"""

from __future__ import annotations

import math
import time
from typing import ClassVar

import numpy as np

from lipcert.bounds.chain import lifted_obstacle
from lipcert.bounds.method import Method, Proposal
from lipcert.bounds.norms import certified_norm
from lipcert.errors import InconclusiveError
from lipcert.network.enclosure import Enclosure, Float
from lipcert.network.graph import Network
from lipcert.network.operators import Elementwise
from lipcert.proof.certificate import Witness
from lipcert.proof.claims import Norm
from lipcert.proof.lifted import MAX_ENTRIES, Lifted, lift
from lipcert.proof.rounding import product_up, sum_up
from lipcert.proof.rules.lip_lt import LoopTransformation, as_dense, loop_bound

MOST_ENTRIES = 2**28  # of all composed matrices together: 2 GiB, and as much for their errors while they are made
MOST_FLOPS = 5e12  # of products and proofs: some minutes on one core
SPREADS = 4.0  # of a composed matrix, as room: elsewhere its last bits differ by up to two


class LipLt(Method):
    """Norms of all composed affine maps along a network."""

    name: ClassVar[str] = "lip-lt"
    summary: ClassVar[str] = "norms of the layers composed with each other, slopes split into middle and rest (LipLT)"
    norms: ClassVar[frozenset[Norm]] = LoopTransformation.norms
    cost: ClassVar[str] = "for l layers l^2 / 2 matrix products and norms, n^3 each"

    def refuses(self, network: Network, norm: Norm) -> str | None:
        """Return why the composed matrices would be too many or too large, or None; looks at shapes only."""
        return lifted_obstacle(network) or _too_large(network)

    def propose(self, network: Network, norm: Norm, time_limit: float | None) -> Proposal:
        """Propose the better choice of centres, with all norms that the rule asks for.

        Raises:
            InconclusiveError: the time is over before the last norm is found.
        """
        end = math.inf if time_limit is None else time.monotonic() + time_limit
        lifted = lift(network)
        best = math.inf
        witness: Witness = {}
        for centres in _choices(lifted):
            found = _Norms(end)
            bound = loop_bound(lifted, centres, found)
            if bound < best or not witness:
                best, witness = bound, {"centres": np.concatenate(centres), "norms": np.array(found.values)}
        return Proposal(LoopTransformation.id, witness)


class _Norms:
    """Finds the norms that the rule asks for, and keeps them in its order."""

    def __init__(self, end: float) -> None:
        self.values: list[float] = []
        self._end = end

    def __call__(self, matrix: Enclosure, spread: float) -> float:
        if time.monotonic() > self._end:
            raise InconclusiveError("the time was over before all norms of composed layers were found")
        op = as_dense(matrix)
        found = certified_norm(op, op.weight.shape[1:], op.weight.shape[:1])
        value = sum_up([product_up(found.value, 1.0 + found.room), product_up(SPREADS, spread)])
        self.values.append(value)
        return value


def _choices(lifted: Lifted) -> list[list[Float]]:
    middle = [0.5 * (block.alpha + block.beta) for block in lifted.blocks]
    hull = [np.full(block.size, 0.5 * (block.alpha.min() + block.beta.max())) for block in lifted.blocks]
    same = all(np.array_equal(a, b) for a, b in zip(middle, hull, strict=True))
    return [middle] if same else [middle, hull]


def _too_large(network: Network) -> str | None:
    """Walk through the network as the rule does, with sizes only."""
    reads = [frozenset({0})]  # blocks that the row of a node reads
    reaches: dict[int, frozenset[int]] = {0: frozenset()}  # blocks that a block's composed maps start from
    entries, flops = 0, 0.0
    for index, node in enumerate(network.nodes[1:], start=1):
        row = frozenset().union(*(reads[i] for i in node.inputs))
        ends = isinstance(node.op, Elementwise)
        reads.append(frozenset({index}) if ends else row)
        if not ends and index != len(network.nodes) - 1:
            continue
        reaches[index] = row.union(*(reaches[i] for i in row))
        sizes = [network.nodes[j].size for j in reaches[index]]
        if max(sizes) * node.size > MAX_ENTRIES:
            return f"a composed map into '{node.name}' is too large for a dense matrix ({node.size} x {max(sizes)})"
        entries += node.size * sum(sizes)
        for i in row - {0}:
            flops += 4.0 * node.size * network.nodes[i].size * sum(network.nodes[j].size for j in reaches[i])
        flops += sum(8.0 * node.size * size * min(node.size, size) for size in sizes)
    if entries > MOST_ENTRIES:
        return f"the composed matrices have {entries:.2g} entries together ({MOST_ENTRIES:.2g} at most)"
    if flops > MOST_FLOPS:
        return f"the composed matrices and their norms take {flops:.2g} operations ({MOST_FLOPS:.2g} at most)"
    return None
