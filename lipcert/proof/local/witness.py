"""Proposals as the witness arrays of a certificate, and back.

Names are ``margins/NODE/low`` and ``/high``; ``entries/NODE/rows``, ``entries/NODE/AT/low`` and ``/high``;
``multipliers/SET/NODE``; ``norms/NODE``; ``parts/cuts``, ``/at``, ``/leaves``, ``/shifts``, ``/functions`` and, where
there are not as many trees as samples, ``/owners``; ``parts/multipliers/NODE``, ``parts/slopes/NODE``,
``parts/weights/NODE/outputs`` and ``/inputs``; nodes by their index in the normal form without a last softmax. What is
read is of the right shape for the network, or refused; the numbers may be any.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lipcert.network.enclosure import Float
from lipcert.network.graph import Network
from lipcert.network.operators import Elementwise
from lipcert.proof.container import Arrays
from lipcert.proof.local.parts import Parts
from lipcert.proof.local.proposal import Ints, Proposal, Slopes
from lipcert.proof.refusal import Refused

_WHOLE, _REAL, _ENDS = ("cuts", "leaves", "functions"), ("at", "shifts"), ("outputs", "inputs")
_BY_NODE = "multipliers", "slopes"


def to_arrays(proposal: Proposal) -> dict[str, npt.NDArray[Any]]:
    """Return a proposal as named arrays."""
    found: dict[str, npt.NDArray[Any]] = _named("margins", proposal.margins)
    for node, (rows, slopes) in proposal.entries.items():
        found[f"entries/{node}/rows"] = rows
        found |= _named(f"entries/{node}", slopes)
    for k, multipliers in enumerate(proposal.multipliers):
        found |= {f"multipliers/{k}/{node}": e for node, e in multipliers.items()}
    if proposal.parts is not None:
        found |= _named_parts(proposal.parts)
    return found | {f"norms/{node}": np.array([value]) for node, value in proposal.norms.items()}


def _named_parts(parts: Parts) -> dict[str, npt.NDArray[Any]]:
    found: dict[str, npt.NDArray[Any]] = {f"parts/{name}": getattr(parts, name) for name in (*_WHOLE, *_REAL)}
    if parts.owners is not None:
        found["parts/owners"] = parts.owners
    for name in _BY_NODE:
        found |= {f"parts/{name}/{node}": array for node, array in getattr(parts, name).items()}
    for node, pair in parts.weights.items():
        found |= {f"parts/weights/{node}/{end}": part for end, part in zip(_ENDS, pair, strict=True)}
    return found


def _named(prefix: str, slopes: Slopes) -> dict[str, npt.NDArray[Any]]:
    ends = {node: dict(zip(("low", "high"), pair, strict=True)) for node, pair in slopes.items()}
    return {f"{prefix}/{node}/{end}": value for node, pair in ends.items() for end, value in pair.items()}


def from_arrays(witness: Arrays, network: Network, count: int) -> Proposal:
    """Return the proposal for `count` samples that a witness holds.

    Args:
        witness: named arrays.
        network: the normal form without a last softmax.
        count: of samples.

    Raises:
        Refused: an array is not of the form that is read here.
    """
    reader = _Reader(witness, network, count)
    rivals = network.nodes[-1].size - 1
    margins = {node: reader.slopes(f"margins/{node}", node, rivals) for node in reader.nodes("margins")}
    entries = {}
    for node in reader.nodes("entries"):
        rows = reader.rows(node)
        at = [k for k in reader.nodes(f"entries/{node}") if k < node]
        entries[node] = rows, {k: reader.slopes(f"entries/{node}/{k}", k, 2 * rows.shape[1]) for k in at}
    sets = [
        {node: reader.multipliers(f"multipliers/{k}/{node}", node) for node in reader.nodes(f"multipliers/{k}")}
        for k in reader.nodes("multipliers")
    ]
    norms = {node: reader.number(f"norms/{node}") for node in reader.nodes("norms")}
    parts = reader.parts() if "parts/cuts" in witness else None
    reader.require_all_read()
    return Proposal(margins, entries, sets, norms, parts)


class _Reader:
    """Takes arrays by name and checks their shapes; args of the constructor as of `from_arrays`."""

    def __init__(self, witness: Arrays, network: Network, count: int) -> None:
        self._left, self._network, self._count = dict(witness), network, count

    def nodes(self, prefix: str) -> list[int]:
        """Return the numbers that follow a prefix in the names, in order."""
        tails = (name.removeprefix(f"{prefix}/") for name in self._left if name.startswith(f"{prefix}/"))
        heads = {tail.partition("/")[0] for tail in tails}
        return sorted(int(head) for head in heads if head.isascii() and head.isdigit() and str(int(head)) == head)

    def slopes(self, name: str, node: int, functions: int) -> tuple[Float, Float]:
        """Return slopes of an elementwise node, for one function or for so many."""
        low, high = (self._take(f"{name}/{end}", "f") for end in ("low", "high"))
        for end in (low, high):
            self._require_shape(name, end, [(s, *self._shape(name, node)) for s in (1, functions)])
        return low, high

    def multipliers(self, name: str, node: int) -> Float:
        """Return multipliers of an elementwise node."""
        found = self._take(name, "f")
        self._require_shape(name, found, [self._shape(name, node)])
        return found

    def parts(self) -> Parts:
        """Return trees, one for each sample, and what is proposed for their leaves."""
        multipliers, slopes = (
            {node: self._take(f"parts/{name}/{node}", "f") for node in self.nodes(f"parts/{name}")} for name in _BY_NODE
        )
        weights = {}
        for node in self.nodes("parts/weights"):
            p, q = (self._take(f"parts/weights/{node}/{end}", "f") for end in _ENDS)
            weights[node] = p, q
        cuts, leaves, functions = (self._take(f"parts/{name}", "i") for name in _WHOLE)
        at, shifts = (self._take(f"parts/{name}", "f") for name in _REAL)
        owners = self._take("parts/owners", "i") if "parts/owners" in self._left else None
        found = Parts(cuts, at, leaves, shifts, multipliers, slopes, functions, weights, owners)
        found.require(self._network, self._count)
        return found

    def number(self, name: str) -> float:
        """Return a single number."""
        found = self._take(name, "f")
        if found.shape != (1,):
            raise Refused(f"'{name[:60]}' is not one number")
        return float(found[0])

    def rows(self, node: int) -> Ints:
        """Return positions in a node."""
        name = f"entries/{node}/rows"
        found: Ints = self._take(name, "i")
        inside = 0 < node < len(self._network.nodes) and found.ndim == 2 and len(found) == self._count
        if not inside or not ((found >= 0) & (found < self._network.nodes[node].size)).all() or not found.size:
            raise Refused(f"'{name[:60]}' holds no positions in a node")
        return found

    def require_all_read(self) -> None:
        """Raise Refused if an array is left over."""
        if self._left:
            raise Refused(f"the witness has arrays of no meaning, such as '{min(self._left)[:60]}'")

    def _take(self, name: str, kind: str) -> npt.NDArray[Any]:
        found = self._left.pop(name, None)
        if found is None or found.dtype.kind != kind:
            raise Refused(f"the witness has no array '{name[:60]}' of the right type")
        return found

    def _shape(self, name: str, node: int) -> tuple[int, ...]:
        nodes = self._network.nodes
        if not (node < len(nodes) and isinstance(nodes[node].op, Elementwise)):
            raise Refused(f"'{name[:60]}' is about a node that is no elementwise activation")
        return nodes[node].shape

    def _require_shape(self, name: str, array: npt.NDArray[Any], shapes: list[tuple[int, ...]]) -> None:
        if array.shape not in [(self._count, *shape) for shape in shapes]:
            raise Refused(f"'{name[:60]}' does not have the shape of its node")
