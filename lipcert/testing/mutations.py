"""Certificates made wrong in every way: none that claims more than is true may be accepted, none may crash the checker.

A *mutant* is a certificate file, or its model, with one change. What becomes of it is its *fate*:

* ``rejected``: both engines refuse it;
* ``harmless``: it is accepted, and rightly: the exact engine proves the claim that the mutant makes, of the model that
  it is shown, and the claim is not below the largest slope found by looking (`testing.truth`; for countable networks
  that is the Lipschitz constant itself). A change of the note on who wrote the file is such a mutant;
* ``false``: it is accepted though its claim is below that slope;
* ``split``: float64 accepts what the exact engine does not;
* ``crashed``: something else was raised than the error for a malformed file.

The last three are faults of the checker.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from lipcert.network.enclosure import Enclosure, Float
from lipcert.network.graph import Network
from lipcert.network.operators import Conv, Dense, Elementwise, Scale
from lipcert.proof.certificate import Certificate
from lipcert.proof.checker import check
from lipcert.proof.claims import Quantity
from lipcert.proof.reasons import Malformed
from lipcert.proof.rules import RULES
from lipcert.proof.subject import subject
from lipcert.testing.truth import jacobians_of, lower_bound

Rng = np.random.Generator
Fate = Literal["rejected", "harmless", "false", "split", "crashed"]
FAULTS: frozenset[Fate] = frozenset({"false", "split", "crashed"})


@dataclass(frozen=True, eq=False)
class Case:
    """A valid certificate with its network."""

    certificate: Certificate
    network: Network

    @property
    def content(self) -> bytes:
        """The certificate's file."""
        return self.certificate.to_bytes()


@dataclass(frozen=True, eq=False)
class Mutant:
    """A changed certificate file and the network that it is checked against."""

    kind: str
    content: bytes
    network: Network


Mutation = Callable[[Case, Rng], tuple[bytes, Network] | None]  # None where there is nothing to change


def mutants(case: Case, seed: int, rounds: int) -> Iterator[Mutant]:
    """Yield `rounds` mutants of every kind that applies; the same seed yields the same."""
    original = case.content
    for number, (kind, mutate) in enumerate(MUTATIONS.items()):
        rng = np.random.default_rng((seed, number))
        for _ in range(rounds):
            made = mutate(case, rng)
            if made is not None and (made[0] != original or made[1] is not case.network):
                yield Mutant(kind, *made)


def fate_of(mutant: Mutant) -> Fate:
    """Check a mutant by both engines."""
    try:
        certificate = Certificate.from_bytes(mutant.content)
        fast, exact = (check(certificate, mutant.network, engine).valid for engine in ("float64", "exact"))
    except Malformed:
        return "rejected"
    except Exception:
        return "crashed"
    if fast and not exact:
        return "split"
    if not exact:
        return "rejected"
    return "harmless" if _is_true(certificate, mutant.network) else "false"


def kill_rate(fates: Counter[tuple[str, Fate]]) -> float:
    """Return the fraction of mutants that were rejected among those that are not harmless."""
    harmful = sum(count for (_, fate), count in fates.items() if fate != "harmless")
    return sum(count for (_, fate), count in fates.items() if fate == "rejected") / max(1, harmful)


def _is_true(certificate: Certificate, network: Network) -> bool:
    """Whether no slope was found above the claim (of ``margins``: above the largest)."""
    claim = certificate.claim
    return claim.bound >= lower_bound(claim.norm, _jacobians(network, claim.widest))


@lru_cache(maxsize=8)
def _jacobians(network: Network, quantity: Quantity) -> list[Float]:
    return jacobians_of(subject(network, quantity))


# --- the file's bytes -----------------------------------------------------------------------------------------------


def _flip_bit(case: Case, rng: Rng) -> tuple[bytes, Network]:
    content = bytearray(case.content)
    content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    return bytes(content), case.network


def _flip_blob_bit(case: Case, rng: Rng) -> tuple[bytes, Network] | None:
    content = bytearray(case.content)
    start = 8 + struct.unpack("<Q", content[:8])[0]
    if start == len(content):
        return None
    content[rng.integers(start, len(content))] ^= 1 << int(rng.integers(8))
    return bytes(content), case.network


def _cut(case: Case, rng: Rng) -> tuple[bytes, Network]:
    content = case.content
    start, end = sorted(rng.integers(0, len(content) + 1, 2).tolist())
    forms = (content[:start], content[end:], content[:start] + content[end:], content + content[start:end])
    return forms[rng.integers(len(forms))], case.network


# --- the header -----------------------------------------------------------------------------------------------------

ODD: tuple[Any, ...] = (None, True, 0, -1, 10**400, 1e308, "", "1" * 5000, "\x00", [], {}, [[]] * 3, "nan", "inf", "0x1p+9999")
TEXTS = (
    *("l1", "l2", "linf", "output", "features", "margins", "logit 0", "margin 0 1", "margin 0 0"),
    *("0x0.0p+0", "-0x1.0p+0", "0x0.0000000000001p-1022", "0x1.fffffffffffffp+1023", *RULES),
)


def _parts(case: Case) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    content = case.content
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    return header, json.loads(header["__metadata__"]["lipcert"]), content[8 + length :]


def _file(header: dict[str, Any], document: dict[str, Any] | str, blob: bytes) -> bytes:
    text = document if isinstance(document, str) else json.dumps(document)
    whole = json.dumps({**header, "__metadata__": {"lipcert": text}}).encode()
    return struct.pack("<Q", len(whole)) + whole + blob


def _pick(rng: Rng, choices: Any) -> Any:
    return choices[int(rng.integers(len(choices)))]


def _change_field(case: Case, rng: Rng) -> tuple[bytes, Network]:
    header, document, blob = _parts(case)
    document[_pick(rng, sorted(document))] = _pick(rng, (*ODD, *TEXTS))
    return _file(header, document, blob), case.network


def _change_keys(case: Case, rng: Rng) -> tuple[bytes, Network]:
    """Drop, add or repeat a key of the document."""
    header, document, blob = _parts(case)
    key = _pick(rng, sorted(document))
    text = json.dumps(document)
    forms = (
        json.dumps({k: v for k, v in document.items() if k != key}),
        json.dumps({**document, "more": "x"}),
        text[:-1] + f', "{key}": {json.dumps(_pick(rng, TEXTS))}}}',
        text.replace('"', "'"),
        "[" * 100_000,
        text + text,
    )
    return _file(header, _pick(rng, forms), blob), case.network


def _change_digest(case: Case, rng: Rng) -> tuple[bytes, Network]:
    header, document, blob = _parts(case)
    key = _pick(rng, ("graph_digest", "weights_digest"))
    digits = list(document[key])
    digits[rng.integers(64)] = "0123456789abcdefABCDEF-"[rng.integers(23)]
    document[key] = "".join(digits)
    return _file(header, document, blob), case.network


def _change_layout(case: Case, rng: Rng) -> tuple[bytes, Network] | None:
    """Change dtype, shape or place of an array."""
    header, document, blob = _parts(case)
    names = sorted(set(header) - {"__metadata__"})
    if not names:
        return None
    entry = header[_pick(rng, names)]
    key = _pick(rng, ("dtype", "shape", "data_offsets"))
    values = {
        "dtype": ("F64", "I64", "F32", "BF16", None),
        "shape": ([], [0], [-1], [2**70], [1, *entry["shape"]], entry["shape"][::-1], [True], [1.0], None),
        "data_offsets": ([0, 0], [0, 2**70], [8, 16], entry["data_offsets"][::-1], [0], [-8, 8], None),
    }
    entry[key] = _pick(rng, (*values[key], *ODD))
    return _file(header, document, blob), case.network


# --- the claim and the witness --------------------------------------------------------------------------------------


def _lowered(case: Case, factor: float) -> Certificate:
    claim = case.certificate.claim
    lower = min(np.nextafter(claim.bound, 0.0), claim.bound * factor)
    table = claim.table
    if table is not None:
        table = tuple(tuple(min(x * factor, lower) if x < claim.bound else lower for x in row) for row in table)
    return replace(case.certificate, claim=replace(claim, bound=float(lower), table=table))


def _factor(rng: Rng) -> float:
    """A factor just below 1: from one unit in the last place to ten percent."""
    return float(1.0 - 10.0 ** rng.uniform(-16, -1))


def _lower_bound(case: Case, rng: Rng) -> tuple[bytes, Network]:
    return _lowered(case, _factor(rng)).to_bytes(), case.network


VALUES = (0.0, -0.0, 5e-324, 1e-300, 1e-12, 1.0, 1e12, 1e308, np.nan, np.inf, -np.inf)


def _change_number(case: Case, rng: Rng) -> tuple[bytes, Network] | None:
    """Negate, zero, swap, scale or replace one number of the witness."""
    return _with_array(case, rng, _changed_number)


def _changed_number(array: np.ndarray[Any, Any], rng: Rng) -> np.ndarray[Any, Any]:
    changed = array.copy()
    flat, i = changed.reshape(-1), int(rng.integers(array.size))
    if changed.dtype.kind == "i":
        flat[i] = _pick(rng, (flat[i] + 1, -flat[i], 0, 2**62, -(2**63)))
        return changed
    match int(rng.integers(6)):
        case 0:
            flat[i] = -flat[i]
        case 1:
            j = int(rng.integers(array.size))
            flat[i], flat[j] = flat[j], flat[i]
        case 2:
            flat[i] *= 10.0 ** rng.uniform(-3, 3)
        case 3:
            flat[i] *= 1.0 + float(rng.choice([-1, 1])) * 10.0 ** rng.uniform(-16, -1)
        case 4:
            flat[i] = np.nextafter(flat[i], float(rng.choice([-np.inf, np.inf])))
        case _:
            flat[i] = _pick(rng, VALUES)
    return changed


def _change_array(case: Case, rng: Rng) -> tuple[bytes, Network] | None:
    """Negate, zero, reverse, shorten or retype a whole array of the witness."""
    return _with_array(case, rng, _changed_array)


def _changed_array(array: np.ndarray[Any, Any], rng: Rng) -> np.ndarray[Any, Any]:
    forms: tuple[np.ndarray[Any, Any], ...] = (
        -array,
        np.zeros_like(array),
        array.reshape(-1)[::-1].reshape(array.shape),
        array.reshape(-1)[:-1],
        np.append(array.reshape(-1), array.reshape(-1)[:1]),
        array.reshape(1, -1),
        array.view(np.int64 if array.dtype.kind == "f" else np.float64),
        array * 2,
    )
    return np.asarray(_pick(rng, forms))


def _with_array(
    case: Case, rng: Rng, change: Callable[[np.ndarray[Any, Any], Rng], np.ndarray[Any, Any]]
) -> tuple[bytes, Network] | None:
    witness = {name: np.asarray(array) for name, array in case.certificate.witness.items()}
    names = sorted(name for name, array in witness.items() if array.size)
    if not names:
        return None
    name = _pick(rng, names)
    witness[name] = change(witness[name], rng)
    return replace(case.certificate, witness=witness).to_bytes(), case.network


def _change_names(case: Case, rng: Rng) -> tuple[bytes, Network]:
    """Drop, rename or add an array, or take away all of them."""
    witness = dict(case.certificate.witness)
    forms = [{}, {**witness, "more": np.ones(1)}]
    for name in witness:
        rest = {k: v for k, v in witness.items() if k != name}
        forms += [rest, {**rest, name + "x": witness[name]}, {**rest, "0." + name: witness[name]}]
    return replace(case.certificate, witness=_pick(rng, forms)).to_bytes(), case.network


def _claim_more(case: Case, rng: Rng) -> tuple[bytes, Network] | None:
    """Lower the claim, and the numbers of the witness that it rests on with it: a lie that is consistent in itself."""
    factor = _factor(rng)
    lower = _lowered(case, factor)
    powers = {"norms": 1.0, "inverse_square": -2.0, "inverse_squares": -2.0, "gram": 2.0}
    witness = {
        name: np.asarray(array) * factor ** powers.get(name.rpartition(".")[2], 0.0)
        if np.asarray(array).dtype.kind == "f"
        else array
        for name, array in case.certificate.witness.items()
    }
    return replace(lower, witness=witness).to_bytes(), case.network


def _change_rule(case: Case, rng: Rng) -> tuple[bytes, Network]:
    rule = _pick(rng, (*RULES, case.certificate.rule + " ", case.certificate.rule.replace("v1", "v2"), "x" * 300))
    return replace(case.certificate, rule=rule).to_bytes(), case.network


# --- the model ------------------------------------------------------------------------------------------------------


def _flip_weight_bit(case: Case, rng: Rng) -> tuple[bytes, Network] | None:
    """Flip one bit of one weight of the model; the certificate stays."""
    places = [i for i, node in enumerate(case.network.nodes) if isinstance(node.op, (Dense, Conv, Scale))]
    if not places:
        return None
    index = _pick(rng, places)
    op: Any = case.network.nodes[index].op
    field = "factor" if isinstance(op, Scale) else "weight"
    numbers: Enclosure = getattr(op, field)
    changed = numbers.mid.copy()
    changed.reshape(-1).view(np.int64)[rng.integers(changed.size)] ^= np.int64(1) << int(rng.integers(63))
    if not np.isfinite(changed).all():
        return None
    return case.content, _with_op(case.network, index, replace(op, **{field: Enclosure(changed, numbers.rad)}))


def _change_slope(case: Case, rng: Rng) -> tuple[bytes, Network] | None:
    """Give an activation of the model other slopes; the certificate stays."""
    places = [i for i, node in enumerate(case.network.nodes) if isinstance(node.op, Elementwise)]
    if not places:
        return None
    index = _pick(rng, places)
    slope = np.array(float(rng.uniform(-3.0, 3.0)))
    return case.content, _with_op(case.network, index, Elementwise("leaky_relu", (slope,)))


def _with_op(network: Network, index: int, op: Any) -> Network:
    nodes = list(network.nodes)
    nodes[index] = replace(nodes[index], op=op)
    return replace(network, nodes=tuple(nodes))


MUTATIONS: Mapping[str, Mutation] = {
    "a bit of the file": _flip_bit,
    "a bit of the arrays": _flip_blob_bit,
    "cut and spliced": _cut,
    "a field of the document": _change_field,
    "the document's keys": _change_keys,
    "a digest": _change_digest,
    "the layout of an array": _change_layout,
    "a lower claim": _lower_bound,
    "a number of the witness": _change_number,
    "an array of the witness": _change_array,
    "the names of the arrays": _change_names,
    "a lower claim with its witness": _claim_more,
    "another rule": _change_rule,
    "a bit of a weight": _flip_weight_bit,
    "a slope of the model": _change_slope,
}
