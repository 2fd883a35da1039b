"""The stretch rule: a network cut into stretches, each bounded by a rule of its own.

Theorem. Let the network be f = f_k o ... o f_1, cut at nodes through which every path runs. If every f_i has the
Lipschitz constant L_i in one norm, f has L_1 ... L_k. Proof: ||f_i(a) - f_i(b)|| <= L_i ||a - b||, one after the other.

The stretches are rebuilt from the network alone (`network.cut.stretch`), and each bound is derived anew. A stretch is
not cut again. So rules that cover elementwise activations only serve networks with max pooling, sorting or softmax
between, and those with an n^3 cost serve networks that are too large as a whole.
Source: elementary; Fazlyab et al. 2019 bound deep networks so, LipSDP for each part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from lipcert.network.cut import stretch
from lipcert.network.graph import Network
from lipcert.proof.certificate import Witness
from lipcert.proof.claims import NORMS, Norm
from lipcert.proof.refusal import Refused
from lipcert.proof.rounding import product_up
from lipcert.proof.rules.base import Derivation, Rule, Step


class Stretches(Rule):
    """Products of the bounds of stretches.

    Witness arrays: ``cuts`` (k - 1,) int64, ascending nodes of the normal form, the input and the output left out;
    ``rules`` int64, the ids of the k rules as ASCII codes with a blank between; and each array of the witness of
    stretch i = 0 .. k - 1 with ``i.`` before its name.
    """

    id: ClassVar[str] = "stretches/v1"
    norms: ClassVar[frozenset[Norm]] = frozenset(NORMS)

    def __init__(self, parts: Mapping[str, Rule]) -> None:
        """Take the rules that may bound a stretch, by id."""
        self._parts = parts

    def prove(self, network: Network, norm: Norm, witness: Witness) -> Derivation:
        """Derive the product of the stretches' bounds, rounded up; one step for each stretch, at its last node."""
        cuts, rules, parts = unpack(witness)
        ends = [0, *cuts, len(network.nodes) - 1]
        bounds = [1.0]
        steps = []
        for number, ((start, end), rule) in enumerate(zip(pairwise(ends), rules, strict=True)):
            if rule not in self._parts:
                raise Refused(f"stretch {number} names the rule '{rule[:40]}', which bounds no stretch")
            try:
                part = stretch(network, start, end)
            except ValueError as error:
                raise Refused(f"the network cannot be cut so: {error}") from None
            factor = self._parts[rule].derive(part, norm, parts[number]).bound
            bounds.append(product_up(bounds[-1], factor))
            steps.append(Step(end, factor, bounds[-1]))
        return Derivation(bounds[-1], tuple(steps))


def pack(cuts: Sequence[int], stretches: Sequence[tuple[str, Witness]]) -> Witness:
    """Return the witness for stretches, each with its rule and that rule's witness, cut at the given nodes."""
    text = " ".join(rule for rule, _ in stretches)
    arrays = {f"{i}.{name}": array for i, (_, witness) in enumerate(stretches) for name, array in witness.items()}
    codes = np.frombuffer(text.encode("ascii"), dtype=np.uint8).astype(np.int64)
    return {"cuts": np.array(cuts, dtype=np.int64), "rules": codes, **arrays}


def unpack(witness: Witness) -> tuple[list[int], list[str], list[dict[str, npt.NDArray[Any]]]]:
    """Return cuts, rules and witnesses of the stretches; the inverse of `pack`.

    Raises:
        Refused: the witness is not of this form, or has an array that belongs to no stretch.
    """
    if not {"cuts", "rules"} <= set(witness):
        raise Refused("the witness of stretches has the arrays 'cuts' and 'rules'")
    cuts, codes = np.asarray(witness["cuts"]), np.asarray(witness["rules"])
    if cuts.dtype.kind != "i" or codes.dtype.kind != "i" or cuts.ndim != 1 or codes.ndim != 1:
        raise Refused("'cuts' and 'rules' are lists of integers")
    if not ((codes >= 32) & (codes < 127)).all():
        raise Refused("'rules' is not text in ASCII codes")
    rules = "".join(map(chr, codes.tolist())).split(" ")
    if len(rules) != len(cuts) + 1:
        raise Refused(f"{len(cuts)} cuts make {len(cuts) + 1} stretches, and {len(rules)} rules are named")
    parts: dict[str, dict[str, npt.NDArray[Any]]] = {str(i): {} for i in range(len(rules))}
    for name, array in witness.items():
        number, _, rest = name.partition(".")
        if rest and number in parts:
            parts[number][rest] = array
        elif name not in ("cuts", "rules"):
            raise Refused(f"the array '{name[:40]}' belongs to no stretch")
    return cuts.tolist(), rules, list(parts.values())
