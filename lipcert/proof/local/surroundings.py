"""What is known of all nodes before any box: their values at the samples, and Lipschitz bounds of the whole network.

An entry of an affine node moves by at most eps L ||row||_*, with L a Lipschitz bound of what the node reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lipcert.network.enclosure import round_up
from lipcert.network.graph import Network
from lipcert.network.operators import Reshape
from lipcert.proof.claims import Norm
from lipcert.proof.local.affine import Box
from lipcert.proof.local.arithmetic import above, below
from lipcert.proof.local.boxes import Steps, propagate
from lipcert.proof.local.proposal import Ints
from lipcert.proof.local.region import Region
from lipcert.proof.refusal import Refused
from lipcert.proof.rules.product import Product, needs_witness


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Of B samples.

    Attributes:
        steps, region: the network and the balls.
        centre: boxes of the values of all nodes at the samples, (B, *shape).
        lipschitz: of all nodes, from the input, in the norm in which rows are measured; infinite where none is known.
    """

    steps: Steps
    region: Region
    centre: Sequence[Box]
    lipschitz: Sequence[float]

    @staticmethod
    def of(steps: Steps, region: Region, lipschitz: Sequence[float]) -> Surroundings:
        """Evaluate the network at the samples."""
        points = region.centre.astype(np.float64)
        return Surroundings(steps, region, values_at(steps, (points, points)), lipschitz)

    def take(self, samples: slice | Ints) -> Surroundings:
        """Return the same of some samples."""
        centre = [(low[samples], high[samples]) for low, high in self.centre]
        return Surroundings(self.steps, self.region.take(samples), centre, self.lipschitz)

    def narrowed(self, index: int, box: Box) -> Box:
        """Return the box of an affine node, intersected with what its rows say; others as they are."""
        step = self.steps.affine.get(index)
        if step is None or (self.region.norm == "linf" and self.steps.is_first(index)):
            return box
        bound, reach = self.lipschitz[self.steps.nodes[index].inputs[0]], step.reaches(self.region.norm)
        if reach is None or not np.isfinite(bound):
            return box
        length = round_up(self.region.eps * bound * reach)
        least, most = self.centre[index]
        return np.maximum(box[0], below(least, length)), np.minimum(box[1], above(most, length))


def values_at(steps: Steps, points: Box) -> list[Box]:
    """Return boxes of the values of all nodes at points, each of which is known to lie in a box (B, *input_shape)."""
    found = [points]
    for index, node in enumerate(steps.nodes[1:], start=1):
        found.append(propagate(steps, index, [found[i] for i in node.inputs]))
    return found


def lipschitz_bounds(network: Network, norm: Norm, norms: Mapping[int, float]) -> list[float]:
    """Return verified Lipschitz bounds of all nodes in l2, or in linf for linf balls; see `proof.rules.product`.

    Args:
        network: a normal form.
        norm: of the balls.
        norms: proposed l2 norms of dense and convolution nodes, needed for l1 and l2 balls.

    Returns:
        A bound for each node; where nothing can be proved, only for the input, reshaped or not: infinite for others.
    """
    measured: Norm = "linf" if norm == "linf" else "l2"
    nodes = [i for i, node in enumerate(network.nodes) if measured == "l2" and needs_witness(node.op)]
    known = all(i in norms for i in nodes)
    if known:
        witness = {"nodes": np.array(nodes, dtype=np.int64), "norms": np.array([float(norms[i]) for i in nodes])}
        try:
            steps = Product().derive(network, measured, witness).steps
            return [1.0, *(step.cumulative for step in steps)]
        except Refused:
            pass
    bounds = [1.0]
    for node in network.nodes[1:]:
        bounds.append(bounds[node.inputs[0]] if isinstance(node.op, Reshape) else np.inf)
    return bounds
