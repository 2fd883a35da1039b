"""Mutations of the claim, the rule and the witness, and of the model that they are about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from lipcert.network.graph import Network
from lipcert.proof.certificate import Certificate
from lipcert.proof.container import Arrays
from lipcert.proof.rules import RULES
from lipcert.testing.mutations.case import Case, Rng, pick


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


def lower_claim(case: Case, rng: Rng) -> tuple[bytes, Network]:
    """Lower the claim, and nothing else."""
    return _lowered(case, _factor(rng)).to_bytes(), case.network


VALUES = (0.0, -0.0, 5e-324, 1e-300, 1e-12, 1.0, 1e12, 1e308, np.nan, np.inf, -np.inf)


def change_number(case: Case, rng: Rng) -> tuple[bytes, Network] | None:
    """Negate, zero, swap, scale or replace one number of the witness."""
    return _with_witness(case, changed(case.certificate.witness, rng, changed_number))


def change_array(case: Case, rng: Rng) -> tuple[bytes, Network] | None:
    """Negate, zero, reverse, shorten or retype a whole array of the witness."""
    return _with_witness(case, changed(case.certificate.witness, rng, changed_array))


def _with_witness(case: Case, witness: dict[str, np.ndarray[Any, Any]] | None) -> tuple[bytes, Network] | None:
    return None if witness is None else (replace(case.certificate, witness=witness).to_bytes(), case.network)


def changed_number(array: np.ndarray[Any, Any], rng: Rng) -> np.ndarray[Any, Any]:
    """Return an array with one number negated, zeroed, swapped, scaled or replaced."""
    new = array.copy()
    flat, i = new.reshape(-1), int(rng.integers(array.size))
    if new.dtype.kind == "i":
        flat[i] = pick(rng, (flat[i] + 1, -flat[i], 0, 2**62, -(2**63)))
        return new
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
            flat[i] = pick(rng, VALUES)
    return new


def changed_array(array: np.ndarray[Any, Any], rng: Rng) -> np.ndarray[Any, Any]:
    """Return an array as a whole negated, zeroed, reversed, shortened or retyped."""
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
    return np.asarray(pick(rng, forms))


def changed(
    arrays: Arrays, rng: Rng, change: Callable[[np.ndarray[Any, Any], Rng], np.ndarray[Any, Any]]
) -> dict[str, np.ndarray[Any, Any]] | None:
    """Return a witness with one of its arrays changed; None where there is nothing to change."""
    witness = {name: np.asarray(array) for name, array in arrays.items()}
    names = sorted(name for name, array in witness.items() if array.size)
    if not names:
        return None
    name = pick(rng, names)
    witness[name] = change(witness[name], rng)
    return witness


def change_names(case: Case, rng: Rng) -> tuple[bytes, Network]:
    """Drop, rename or add an array, or take away all of them."""
    witness = dict(case.certificate.witness)
    forms = [{}, {**witness, "more": np.ones(1)}]
    for name in witness:
        rest = {k: v for k, v in witness.items() if k != name}
        forms += [rest, {**rest, name + "x": witness[name]}, {**rest, "0." + name: witness[name]}]
    return replace(case.certificate, witness=pick(rng, forms)).to_bytes(), case.network


def claim_more(case: Case, rng: Rng) -> tuple[bytes, Network] | None:
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


def change_rule(case: Case, rng: Rng) -> tuple[bytes, Network]:
    """Name another rule."""
    rule = pick(rng, (*RULES, case.certificate.rule + " ", case.certificate.rule.replace("v1", "v2"), "x" * 300))
    return replace(case.certificate, rule=rule).to_bytes(), case.network
