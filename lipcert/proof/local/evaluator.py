"""Lower bounds of margins on balls, every rounding counted: intervals and CROWN, a batch at a time.

Boxes grow in node order; where an activation reads a node and is not linear on its box, the box is narrowed by linear
functions sent back to the input. Slopes of the lines may be anything. The evaluator takes those of least area itself;
others may be proposed for each function (alpha-CROWN): only the intercepts are derived, and the better bound counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from lipcert.network.enclosure import Float
from lipcert.network.graph import Network
from lipcert.network.normal import normal_form, strip_softmax
from lipcert.network.operators import Elementwise
from lipcert.proof.claims import Norm
from lipcert.proof.environment import require_ieee
from lipcert.proof.local.affine import Box
from lipcert.proof.local.anchored import margins_by_multipliers
from lipcert.proof.local.backward import Account, Backward, Relaxation, relax
from lipcert.proof.local.boxes import Steps, inside, propagate, taken
from lipcert.proof.local.curved import lines
from lipcert.proof.local.jacobian import margins_by_gradients
from lipcert.proof.local.leaves import margins_on_parts, state
from lipcert.proof.local.margins import differences, margins_on_boxes, rivals
from lipcert.proof.local.masked_norms import layer_norms
from lipcert.proof.local.narrowing import Look, Narrowing, improved, is_tight
from lipcert.proof.local.proposal import NOTHING, Ints, Proposal, Slopes
from lipcert.proof.local.pruned import Pruned
from lipcert.proof.local.region import Region
from lipcert.proof.local.surroundings import Surroundings, lipschitz_bounds
from lipcert.proof.refusal import Refused


class Evaluator:
    """Verified local bounds of one network.

    Args of the constructor:
        network: as read; its enclosures' radii are counted.

    Attributes:
        steps: its normal form without a last softmax, prepared.

    Raises:
        Refused: the network has a node without a verified local rule.
    """

    def __init__(self, network: Network) -> None:
        self.steps = Steps(normal_form(strip_softmax(network)))
        self._bounds: dict[tuple[Norm, tuple[tuple[int, float], ...]], list[float]] = {}

    @np.errstate(all="ignore")
    def intervals(self, region: Region, labels: Ints, proposal: Proposal = NOTHING) -> Float:
        """Return lower bounds of the label's logit minus each rival's, from boxes alone.

        Args:
            region: B balls.
            labels: (B,) classes.
            proposal: norms.

        Returns:
            (B, classes): infinite for the label itself, minus infinity where nothing is proved. Level: verified.

        Raises:
            Refused: the arithmetic of the process is not IEEE 754.
        """
        require_ieee()
        around, found = self._around(region, proposal), [region.ends]
        while len(found) < len(self.steps.nodes):
            found.append(self._next(around, found))
        return self._settled(margins_on_boxes(self.steps, found, labels), found, region, labels)

    @np.errstate(all="ignore")
    def zonotope(self, region: Region, labels: Ints, proposal: Proposal = NOTHING) -> Float:
        """Return bounds as `crown` does, on boxes from zonotopes alone; arguments and errors as of `intervals`."""
        require_ieee()
        around = self._around(region, proposal)
        found, relaxed = self._narrowed_boxes(around, NOTHING, by=Look)
        return self._settled(self._crown(found, relaxed, region, labels, NOTHING), found, region, labels)

    @np.errstate(all="ignore")
    def crown(self, region: Region, labels: Ints, proposal: Proposal = NOTHING) -> Float:
        """Return lower bounds as `intervals` does, from linear functions sent back and from boxes.

        Args:
            region, labels: see `intervals`.
            proposal: norms, and slopes to try as well.
        """
        require_ieee()
        around = self._around(region, proposal)
        found, relaxed = self._narrowed_boxes(around, proposal)
        return self._settled(self._crown(found, relaxed, region, labels, proposal), found, region, labels)

    def anchored(self, region: Region, labels: Ints, proposal: Proposal = NOTHING) -> Float:
        """Return the better of `crown` and of what multipliers prove, where they are proposed.

        Args:
            region, labels: see `intervals`; l2 balls.
            proposal: as of `crown`, and multipliers; those of samples that are proved already are not used.

        Raises:
            Refused: as `intervals`; the balls are not l2 balls, or an activation is not elementwise.
        """
        if region.norm != "l2":
            raise Refused(f"multipliers bound margins on l2 balls, not {region.norm}")
        return self.parts(region, labels, replace(proposal, parts=None))

    @np.errstate(all="ignore")
    def pruned(self, region: Region, labels: Ints, proposal: Proposal = NOTHING) -> Float:
        """Return what norms without constant neurons prove, with boxes of intervals, and of lines where these fail.

        Args:
            region, labels: see `intervals`; l2 balls.
            proposal: norms.

        Raises:
            Refused: as `intervals`; the balls are not l2 balls.
        """
        if region.norm != "l2":
            raise Refused(f"norms without constant neurons bound margins on l2 balls, not {region.norm}")
        require_ieee()
        around, norms = self._around(region, proposal), layer_norms(self.steps, proposal.norms)
        first = Pruned.of(around, norms)
        best = self._settled(first.margins(labels), first.boxes, region, labels)
        rows = np.flatnonzero(~(best > 0).all(axis=1) & region.valid)
        if len(rows):
            some = around.take(rows)
            second = Pruned.of(some, norms, self._narrowed_boxes(some, NOTHING, taken(first.boxes, rows))[0])
            found = self._settled(second.margins(labels[rows]), second.boxes, some.region, labels[rows])
            best[rows] = np.maximum(best[rows], found)
        return best

    @np.errstate(all="ignore")
    def jacobian(self, region: Region, labels: Ints, proposal: Proposal = NOTHING) -> Float:
        """Return the better of what boxes and bounds of gradients prove; arguments and errors as of `crown`."""
        require_ieee()
        around = self._around(region, proposal)
        found, _ = self._narrowed_boxes(around, NOTHING)
        best = margins_on_boxes(self.steps, found, labels)
        for b in np.flatnonzero(~(best > 0).all(axis=1) & region.valid):
            part = slice(int(b), int(b) + 1)
            tried = margins_by_gradients(around.take(part), taken(found, part), labels[part])
            best[part] = np.maximum(best[part], tried)
        return self._settled(best, found, region, labels)

    @np.errstate(all="ignore")
    def parts(self, region: Region, labels: Ints, proposal: Proposal = NOTHING) -> Float:
        """Return the best of `crown`, of `anchored` on l2 balls, and of the least that is proved of a sample's parts.

        Args:
            region, labels: see `intervals`.
            proposal: as of `anchored`, and parts; those of samples that are proved already are not used.

        Raises:
            Refused: as `intervals`; the parts are not those of trees, or multipliers are proposed for a network with
                activations that are not elementwise.
        """
        require_ieee()
        around = self._around(region, proposal)
        found, relaxed = self._narrowed_boxes(around, proposal)
        best = self._crown(found, relaxed, region, labels, proposal)
        if region.norm == "l2":
            self._improve(best, around, found, labels, proposal)
        if proposal.parts is not None:
            proposal.parts.require(self.steps.network, len(region))
            open_ = ~(best > 0).all(axis=1) & region.valid
            rows = np.flatnonzero(open_)
            tried = margins_on_parts(
                around.take(rows), taken(found, rows), labels[rows], proposal.parts.take(open_), self._part
            )
            best[rows] = np.maximum(best[rows], tried)
        return self._settled(best, found, region, labels)

    def _improve(
        self, best: Float, around: Surroundings, found: Sequence[Box], labels: Ints, proposal: Proposal
    ) -> None:
        """Raise bounds (B, classes - 1) in place to what multipliers prove of samples that are open."""
        for b in np.flatnonzero(~(best > 0).all(axis=1) & around.region.valid):
            part = slice(int(b), int(b) + 1)
            sets = [{k: e[part] for k, e in multipliers.items()} for multipliers in proposal.multipliers]
            tried = margins_by_multipliers(around.take(part), taken(found, part), labels[part], sets)
            best[part] = np.maximum(best[part], tried)

    def _part(self, around: Surroundings, known: Sequence[Box], labels: Ints) -> tuple[list[Box], Float]:
        """Return boxes of all nodes on parts inside those that are known, and margins (D, classes - 1)."""
        boxes, relaxed = self._narrowed_boxes(around, NOTHING, known)
        return boxes, self._crown(boxes, relaxed, around.region, labels, NOTHING)

    def _crown(
        self, found: list[Box], relaxed: Mapping[int, Relaxation], region: Region, labels: Ints, proposal: Proposal
    ) -> Float:
        a = differences(labels, self.steps.nodes[-1].size)
        best = margins_on_boxes(self.steps, found, labels)
        tried = [relaxed, self._with_slopes(found, relaxed, proposal.margins)] if proposal.margins else [relaxed]
        for lined in tried:
            account, back = Account.zero(a), Backward(self.steps, found, lined)
            coefficients = back.send(len(self.steps.nodes) - 1, a, account)
            best = np.maximum(best, account.below(region.minimum(coefficients)))
        return best

    def _around(self, region: Region, proposal: Proposal) -> Surroundings:
        key = region.norm, tuple(sorted(proposal.norms.items()))
        if key not in self._bounds:
            self._bounds[key] = lipschitz_bounds(self.steps.network, region.norm, proposal.norms)
        return Surroundings.of(self.steps, region, self._bounds[key])

    def _next(self, around: Surroundings, found: list[Box]) -> Box:
        """Return the box of the next node, given those of all earlier ones."""
        index = len(found)
        box = propagate(self.steps, index, [found[i] for i in self.steps.nodes[index].inputs])
        return around.narrowed(index, box)

    def _narrowed_boxes(
        self,
        around: Surroundings,
        proposal: Proposal,
        known: Sequence[Box] = (),
        by: type[Narrowing] | type[Look] = Narrowing,
    ) -> tuple[list[Box], dict[int, Relaxation]]:
        """Return boxes of all nodes, inside those that are known, and lines of all activation nodes that have some."""
        region, relaxed = around.region, dict[int, Relaxation]()
        found = [inside(region.ends, known[0]) if known else region.ends]
        narrowing = by(self.steps, region, found, relaxed)
        read = {i for _, node in self.steps.network.activation_nodes() for i in node.inputs}
        for index in range(1, len(self.steps.nodes)):
            found.append(self._next(around, found))
            if known:
                found[index] = inside(found[index], known[index])
            if relaxation := relax(self.steps, index, found):
                relaxed[index] = relaxation
            if index in read and not is_tight(self.steps, region, index):
                found[index] = narrowing.narrow(index)
            if index in proposal.entries:
                rows, slopes = proposal.entries[index]
                other = Backward(self.steps, found, self._with_slopes(found, relaxed, slopes))
                found[index] = improved(other, region, index, rows, found[index])
        return found, relaxed

    def _with_slopes(
        self, found: list[Box], relaxed: Mapping[int, Relaxation], slopes: Slopes
    ) -> dict[int, Relaxation]:
        """Return lines of all activation nodes so far, some with other slopes."""
        other = dict(relaxed)
        for index, proposed in slopes.items():
            node = self.steps.nodes[index]
            assert isinstance(node.op, Elementwise)
            other[index] = lines(node.op, *found[node.inputs[0]], slopes=proposed)
        return other

    def _settled(self, bounds: Float, found: list[Box], region: Region, labels: Ints) -> Float:
        """Return (B, classes) margins; nothing of samples that are not valid or whose boxes are no boxes."""
        sound = region.valid & state(found)[0]
        full = np.full((len(labels), bounds.shape[1] + 1), np.inf)
        np.put_along_axis(full, rivals(labels, full.shape[1]), np.where(sound[:, None], bounds, -np.inf), axis=1)
        return full
