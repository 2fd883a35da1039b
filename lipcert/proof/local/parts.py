"""Trees that cut the regions of samples into parts, and what may be proposed for the parts. Nothing in it is trusted.

A tree is a list of rows in preorder: a row (node, entry) cuts at `at`, and is followed by the tree of the points with
h <= at there, then by that of the points with h >= at. A row (-1, -1) is a *leaf*. So whatever rows there are, if they
make trees at all, every point of the region is in a leaf's part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from lipcert.network.enclosure import Float
from lipcert.network.graph import Network
from lipcert.network.operators import Elementwise
from lipcert.proof.local.affine import Box
from lipcert.proof.refusal import Refused

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
LEAF = (-1, -1)

Path = tuple["Path", int] | None
"""How to come to a row: the way to the row above it, and the number of that row, negative -1 - row for h <= at."""


@dataclass(frozen=True, eq=False)
class Parts:
    """Trees of B samples, with anchors, multipliers and weights for some of their leaves.

    Leaves are numbered through all trees, in order. Nodes are those of the normal form without a last softmax.

    Attributes:
        cuts: (T, 2) the rows of all trees, one tree after the other: a node and an entry in it, or -1, -1 for a leaf.
        at: (T,) where it is cut.
        leaves: (L,) numbers of leaves, ascending, that have what follows; one may stand several times.
        shifts: (L, n) their anchors less their samples.
        multipliers: by elementwise node, (L, *shape) positive numbers, see `anchored`; on l2 balls.
        slopes: by elementwise node, (L, *shape) middle slopes of ReLUs, see `tilted`; of no node, those of secants.
        functions: (F, 2) which margins are bounded with weights: a position in `leaves`, and which rival, in order.
        weights: by elementwise node, (F, *shape) any numbers p of its outputs and q of its inputs, see `weighted`.
        owners: (N,) the sample of each tree, ascending; one may have several trees, such as for several rivals, or
            none. None where every sample has one tree.
    """

    cuts: Ints
    at: Float
    leaves: Ints
    shifts: Float
    multipliers: Mapping[int, Float]
    slopes: Mapping[int, Float]
    functions: Ints
    weights: Mapping[int, tuple[Float, Float]]
    owners: Ints | None = None

    @cached_property
    def trees(self) -> Ints:
        """(T,) the tree that each row is of: as many are done before it as the count of open rows has fallen."""
        level = np.cumsum(np.where(self._is_leaf, -1, 1))
        return -np.minimum.accumulate(np.concatenate([np.zeros(1, dtype=np.int64), level]))[:-1]

    @cached_property
    def places(self) -> Ints:
        """(K,) the tree that each leaf is of."""
        return self.trees[self._is_leaf]

    @cached_property
    def samples(self) -> Ints:
        """(N,) the sample that each tree is of."""
        return np.arange(int(self.trees.max(initial=-1)) + 1) if self.owners is None else self.owners

    @property
    def _is_leaf(self) -> Mask:
        return np.asarray((self.cuts == LEAF).all(axis=1))

    def take(self, samples: slice | Mask) -> Parts:
        """Return the same of some samples."""
        count = len(samples) if isinstance(samples, np.ndarray) else int(self.samples.max(initial=-1)) + 1
        chosen = np.zeros(count, dtype=np.bool_)
        chosen[samples] = True
        found = self.without(~chosen[self.samples][self.trees])
        return found if found.owners is None else replace(found, owners=(np.cumsum(chosen) - 1)[found.owners])

    def without(self, rows: Mask) -> Parts:
        """Return the same without some rows (T,) of the trees, and what is proposed for leaves among them."""
        kept = ~rows[self._is_leaf]
        mine = kept[self.leaves]
        own = mine[self.functions[:, 0]]
        functions = self.functions[own]
        return Parts(
            self.cuts[~rows],
            self.at[~rows],
            (np.cumsum(kept) - 1)[self.leaves[mine]],
            self.shifts[mine],
            {node: e[mine] for node, e in self.multipliers.items()},
            {node: m[mine] for node, m in self.slopes.items()},
            np.stack([(np.cumsum(mine) - 1)[functions[:, 0]], functions[:, 1]], axis=1),
            {node: (p[own], q[own]) for node, (p, q) in self.weights.items()},
            None if self.owners is None else self.owners[np.unique(self.trees[~rows])],
        )

    def clipped(self, boxes: Sequence[Box], leaves: Ints) -> list[Box]:
        """Return boxes (D, *shape) of all nodes on the regions of leaves (D,), cut down to their parts."""
        found = [(low.copy(), high.copy()) for low, high in boxes]
        for k, leaf in enumerate(leaves):
            path = self._paths[int(leaf)]
            while path is not None:
                path, step = path
                row = step if step >= 0 else -1 - step
                node, entry = (int(number) for number in self.cuts[row])
                low, high = (end.reshape(len(leaves), -1) for end in found[node])
                if step >= 0:
                    low[k, entry] = np.maximum(low[k, entry], self.at[row])
                else:
                    high[k, entry] = np.minimum(high[k, entry], self.at[row])
        return found

    @cached_property
    def _paths(self) -> list[Path]:
        found: list[Path] = []
        waiting: list[Path] = []
        for row, is_leaf in enumerate(self._is_leaf):
            path = waiting.pop() if waiting else None
            if is_leaf:
                found.append(path)
            else:
                waiting += [(path, row), (path, -1 - row)]
        return found

    def require(self, network: Network, count: int) -> None:
        """Raise Refused unless all is of the right form for a network and so many samples; the numbers may be any."""
        rows = len(self.cuts)
        if rows == 0 or self.cuts.shape != (rows, 2) or self.at.shape != (rows,):
            raise Refused("what cuts the regions into parts is not a list of rows")
        leaf, trees = self._is_leaf, count if self.owners is None else len(self.owners)
        if self.trees[-1] != trees - 1 or 2 * leaf.sum() != rows + trees:
            raise Refused("what cuts the regions into parts is not the trees of the samples")
        own = self.samples
        if own.ndim != 1 or not ((own >= 0) & (own < count)).all() or not (np.diff(own) >= 0).all():
            raise Refused("trees are not those of the samples, in order")
        sizes = np.array([node.size for node in network.nodes])
        node, entry = self.cuts[~leaf].T
        if not ((node >= 0) & (node < len(sizes))).all() or not ((entry >= 0) & (entry < sizes[node])).all():
            raise Refused("a region is cut at no entry of a node")
        if not np.isfinite(self.at).all():
            raise Refused("a region is cut at what is no number")
        self._require_proposed(network, int(leaf.sum()))

    def _require_proposed(self, network: Network, count: int) -> None:
        leaves, many = self.leaves, len(self.functions)
        if leaves.ndim != 1 or not ((leaves >= 0) & (leaves < count)).all() or not (np.diff(leaves) >= 0).all():
            raise Refused("what is proposed for parts is not for leaves of the trees, in order")
        if self.shifts.shape != (len(leaves), network.nodes[0].size):
            raise Refused("the anchors of parts do not have the shape of the input")
        ends = len(leaves), network.nodes[-1].size - 1
        if self.functions.shape != (many, 2) or not ((self.functions >= 0) & (self.functions < ends)).all():
            raise Refused("what is bounded on parts is not the margins of leaves")
        arrays = [(node, e, len(leaves)) for part in (self.multipliers, self.slopes) for node, e in part.items()]
        arrays += [(node, array, many) for node, pair in self.weights.items() for array in pair]
        for node, array, length in arrays:
            known = 0 <= node < len(network.nodes) and isinstance(network.nodes[node].op, Elementwise)
            if not known or array.shape != (length, *network.nodes[node].shape):
                raise Refused("multipliers or weights of parts do not have the shape of an elementwise activation")
