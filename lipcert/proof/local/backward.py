r"""Linear functions sent back to the input with every rounding counted (CROWN; Zhang et al. 2018).

A function of a node is held as a.h + c - e with float64 coefficients a, a constant c and an allowance e >= 0, and
every step keeps  a.h + c - e  below the function that was asked for, on the whole region. What a step rounds in a, by
at most |da| entry by entry, costs |da|.M at most, M >= |h| from the boxes, and goes to e:

* affine nodes: |a|.charge (see `affine`), and eta for each product that may underflow;
* activations: a' = a times the slope of the line below where a >= 0, of the line above elsewhere: one rounding each,
  u |a'|.M; the intercepts' product with a, any order, gamma_{n+1} sum |a| |t|;
* maxima: see `selected`;
* functions that meet in one node: u |a + a'|.M.

NaN and infinity end as a bound of minus infinity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from lipcert.network.enclosure import TINY, UNIT, Float, gamma, round_up
from lipcert.network.operators import Affine, Concat, Elementwise, Sum
from lipcert.proof.local.affine import AffineStep, Box
from lipcert.proof.local.arithmetic import below, over, sum_error
from lipcert.proof.local.boxes import Steps
from lipcert.proof.local.curved import lines
from lipcert.proof.local.proposal import Ints
from lipcert.proof.local.region import Mask
from lipcert.proof.local.selected import Selected, pull_selections, selections
from lipcert.proof.local.straight import Lines

Relaxation = Lines | list[Selected]
"""Linear functions below and above a node: of its entries, or of candidates for maxima."""

NO_OTHERS: Mapping[int, Float] = MappingProxyType({})


def relax(steps: Steps, index: int, boxes: Sequence[Box]) -> Relaxation | None:
    """Return linear functions below and above a node of least area, given the boxes of its inputs; None for none."""
    node = steps.nodes[index]
    if isinstance(node.op, Elementwise):
        return lines(node.op, *boxes[node.inputs[0]])
    return selections(steps.network, index, [boxes[i] for i in node.inputs]) or None


@dataclass
class Account:
    """Constants c and allowances e of functions, (B, S) each, and whether their coefficients were all finite."""

    constant: Float
    allowance: Float
    finite: Mask

    @staticmethod
    def zero(a: Float) -> Account:
        """Return the account of functions with coefficients (B, S, n)."""
        return Account(np.zeros(a.shape[:2]), np.zeros(a.shape[:2]), np.asarray(np.isfinite(a).all(axis=2)))

    def add(self, term: Float, error: Float) -> None:
        """Add computed terms (B, S) that may be off by some errors."""
        self.constant = self.constant + term
        self.allowance = round_up(self.allowance + error + sum_error(self.constant), 4)

    def spend(self, error: Float) -> None:
        """Add errors (B, S) to the allowance."""
        self.allowance = round_up(self.allowance + error, 2)

    def watch(self, a: Float) -> None:
        """Remember which coefficients (B, S, n) are not finite."""
        self.finite = self.finite & np.isfinite(a).all(axis=2)

    def below(self, value: Float) -> Float:
        """Return (B, S) lower bounds of value + c - e; minus infinity where anything was not finite."""
        total = value + self.constant
        found = below(total, round_up(self.allowance + sum_error(total), 4))
        return np.where(np.isfinite(found) & self.finite, found, -np.inf)


class Backward:
    """Sends functions back through nodes whose boxes and lines are known.

    Args of the constructor:
        steps: the network.
        boxes: of all nodes before the one to start from, and of the last target; may grow later.
        lines: of activation nodes, by index; nodes without them count with their boxes only. May grow later.
    """

    def __init__(self, steps: Steps, boxes: Sequence[Box], lines: Mapping[int, Relaxation]) -> None:
        self._steps, self._boxes, self._lines = steps, boxes, lines
        self._known: dict[int, Float] = {}
        self._charges: dict[int, Float] = {}

    def send(
        self, start: int, a: Float, account: Account, target: int = 0, others: Mapping[int, Float] = NO_OTHERS
    ) -> Float:
        """Send functions of a node back; return coefficients (B, S, n) on the target.

        Args:
            start: the node.
            a: (B, S, size of the node).
            account: of these functions; what the way costs is added.
            target: a node that every way back passes.
            others: what the functions take of nodes between target and start besides, coefficients (B, S, their size).
        """
        pending = {start: a, **others}
        for index in range(start, target, -1):
            here = pending.pop(index, None)
            if here is None:
                continue
            for source, part in zip(self._steps.nodes[index].inputs, self._pull(index, here, account), strict=True):
                if part is None:
                    continue
                if source in pending:
                    part = pending[source] + part
                    account.spend(weighed(np.abs(part), 2.0 * UNIT * self.magnitude(source)))
                pending[source] = part
        shape = (*a.shape[:2], self._steps.nodes[target].size)
        return pending.get(target, np.zeros(shape))

    def magnitude(self, index: int) -> Float:
        """Return (B, size) upper bounds of the absolute values of a node."""
        if index not in self._known:
            low, high = self._boxes[index]
            self._known[index] = np.maximum(-low, high).reshape(len(low), -1)
        return self._known[index]

    def charge(self, index: int) -> Float:
        """Return (B, m) the charge of an affine node, see `affine`."""
        if index not in self._charges:
            step = self._steps.affine[index]
            source = self.magnitude(self._steps.nodes[index].inputs[0])
            self._charges[index] = step.charge(source.reshape(-1, *step.source))
        return self._charges[index]

    def entries(self, index: int, rows: Ints) -> tuple[int, Float, Float, Float]:
        """Return entries of a node at positions (B, S) as functions of a node at or before it.

        Returns:
            The node, coefficients (B, S, its size), constants (B, S), and what these may be off by.
        """
        step = self._steps.affine.get(index)
        own = None if step is None else step.rows(rows)
        if step is None or own is None:
            basis = np.zeros((*rows.shape, self._steps.nodes[index].size))
            np.put_along_axis(basis, rows[..., None], 1.0, axis=2)
            return index, basis, np.zeros(rows.shape), np.zeros(rows.shape)
        # rows of W^ are exact; the charge counts what the radii allow
        lost = np.take_along_axis(self.charge(index), rows, axis=1)
        return self._steps.nodes[index].inputs[0], own, step.bias[rows], lost

    def _pull(self, index: int, a: Float, account: Account) -> list[Float | None]:
        """Return coefficients on the inputs of a node, None for none."""
        node = self._steps.nodes[index]
        op = node.op
        match op:
            case Affine():
                return [self._pull_affine(index, a, account)]
            case Sum():
                return [a if sign > 0 else -a for sign in op.signs]
            case Concat():
                sizes = [self._steps.nodes[i].shape[op.axis] for i in node.inputs]
                parts = np.split(a.reshape(*a.shape[:2], *node.shape), np.cumsum(sizes)[:-1], axis=op.axis + 2)
                return [np.ascontiguousarray(part).reshape(*a.shape[:2], -1) for part in parts]
            case _ if index in self._lines:
                relaxation = self._lines[index]
                if isinstance(relaxation, Lines):
                    return [self._pull_lines(index, relaxation, a, account)]
                return self._pull_selected(index, relaxation, a, account)
            case _:
                low, high = (end.reshape(len(a), 1, -1) for end in self._boxes[index])
                add_product(account, np.maximum(a, 0.0), low)
                add_product(account, np.minimum(a, 0.0), high)
                return [None for _ in node.inputs]

    def _pull_affine(self, index: int, a: Float, account: Account) -> Float:
        step = self._steps.affine[index]
        lost = step.terms * TINY * self.magnitude(self._steps.nodes[index].inputs[0]).sum(axis=1)
        account.spend(weighed(np.abs(a), self.charge(index)) + round_up(2.0 * lost)[:, None])
        self._add_offset(step, a, account)
        found = step.adjoint(a)
        account.watch(found)
        return found

    def _add_offset(self, step: AffineStep, a: Float, account: Account) -> None:
        """Add what a node's constant part adds to functions (B, S, m) of its output."""
        if step.bias.any():
            # the error of this product is in the charge, but for underflow
            account.add(a @ step.bias.reshape(-1), np.array(a.shape[2] * TINY))

    def _pull_selected(self, index: int, parts: list[Selected], a: Float, account: Account) -> list[Float | None]:
        inputs = self._steps.nodes[index].inputs
        for part in parts:
            add_product(account, np.maximum(a[..., part.outputs], 0.0), part.low_constant)
            add_product(account, np.minimum(a[..., part.outputs], 0.0), part.high_constant)
        found, lost = pull_selections(parts, a, np.concatenate([self.magnitude(i) for i in inputs], axis=1))
        account.spend(lost)
        account.watch(found)
        return list(np.split(found, len(inputs), axis=2))

    def _pull_lines(self, index: int, lines: Lines, a: Float, account: Account) -> Float:
        inner = self.magnitude(self._steps.nodes[index].inputs[0])
        add_product(account, np.maximum(a, 0.0), lines.low_intercept)
        add_product(account, np.minimum(a, 0.0), lines.high_intercept)
        found = a * np.where(a > 0, lines.low_slope, lines.high_slope)
        account.spend(weighed(np.abs(found), 2.0 * UNIT * inner) + round_up(2.0 * TINY * inner.sum(axis=1))[:, None])
        account.watch(found)
        return found


def weighed(a: Float, vector: Float) -> Float:
    """Return (B, S) upper bounds of products of non-negative a (B, S, n) and vectors (B, n)."""
    return over((a @ vector[..., None])[..., 0], a.shape[2] + 2)


def add_product(account: Account, a: Float, constants: Float) -> None:
    """Add a.t to an account, for coefficients (B, S, n) and constants t (B, 1 or S, n)."""
    if not constants.any():
        return
    count = a.shape[2]
    if constants.shape[1] == 1:
        pairs = np.stack([constants[:, 0], np.abs(constants[:, 0])], axis=2)
        term = (a @ pairs[..., :1])[..., 0]
        size = (np.abs(a) @ pairs[..., 1:])[..., 0]
    else:
        products = a * constants
        term, size = products.sum(axis=2), np.abs(products).sum(axis=2)
    account.add(term, over(gamma(count + 1) * over(size, count + 1), count + 2))
