"""Certificates of samples made wrong: the file, the claim, the samples, the witness, the model.

There is one engine, so a mutant's *fate* is ``rejected``, ``harmless``, ``false`` or ``crashed``: it is *false* where
it is accepted and a point of a ball is found whose class is another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from lipcert.network.enclosure import Float
from lipcert.network.evaluate import evaluate
from lipcert.network.graph import Network
from lipcert.network.normal import strip_softmax
from lipcert.proof.local import (
    LOCAL_RULES,
    BallClaim,
    Evaluator,
    Ints,
    LocalCertificate,
    Samples,
    check_local,
    witness_of,
)
from lipcert.proof.local.parts import LEAF
from lipcert.proof.local.witness import from_arrays
from lipcert.proof.reasons import Malformed
from lipcert.testing.mutations import files, models
from lipcert.testing.mutations.case import Rng, pick
from lipcert.testing.mutations.fates import Fate, Mutant, mutated
from lipcert.testing.mutations.witnesses import changed, changed_array, changed_number

POINTS = 200  # of each ball, where a wrong class is looked for
ROOM = 1e-9  # by which a margin has to be negative, relative to the outputs: float64 rounds


@dataclass(frozen=True, eq=False)
class SamplesCase:
    """A valid certificate of samples, which it holds, with its network."""

    certificate: LocalCertificate
    network: Network

    @property
    def content(self) -> bytes:
        """The certificate's file."""
        return self.certificate.to_bytes()

    @property
    def samples(self) -> Samples:
        """The samples that it holds."""
        assert self.certificate.samples is not None
        return self.certificate.samples


Mutation = Callable[[SamplesCase, Rng], tuple[bytes, Network] | None]


def larger_balls(case: SamplesCase, rng: Rng) -> tuple[bytes, Network]:
    """Claim larger balls, by one unit in the last place or much."""
    eps = case.certificate.claim.eps
    larger = max(float(np.nextafter(eps, np.inf)), eps * float(1.0 + 10.0 ** rng.uniform(-16, 3)))
    return _with_claim(case, replace(case.certificate.claim, eps=larger))


def other_balls(case: SamplesCase, rng: Rng) -> tuple[bytes, Network]:
    """Claim balls of another norm, or without the box, or within another one."""
    claim = case.certificate.claim
    forms = [replace(claim, norm=norm) for norm in ("l1", "l2", "linf")]
    forms += [replace(claim, box=None), replace(claim, box=(-100.0, float(rng.normal())))]
    return _with_claim(case, pick(rng, forms))


def _with_claim(case: SamplesCase, claim: BallClaim) -> tuple[bytes, Network]:
    return replace(case.certificate, claim=claim).to_bytes(), case.network


def other_samples(case: SamplesCase, rng: Rng, honest: bool) -> tuple[bytes, Network]:
    """Move samples or change their classes; with their digest, or with that of the others."""
    inputs, labels = case.samples.inputs.copy(), case.samples.labels.copy()
    if rng.random() < 0.5:
        labels[rng.integers(len(labels))] = pick(rng, (0, 1, -1, 2**40, *labels))
    else:
        inputs += rng.normal(size=inputs.shape) * 10.0 ** rng.uniform(-12, 1)
    samples = Samples(inputs, labels)
    claim = replace(case.certificate.claim, data_digest=samples.digest) if honest else case.certificate.claim
    return replace(case.certificate, claim=claim, samples=samples).to_bytes(), case.network


def change_rule(case: SamplesCase, rng: Rng) -> tuple[bytes, Network]:
    """Name another rule."""
    rule = pick(rng, (*LOCAL_RULES, "product/v1", case.certificate.rule + " ", "x" * 300))
    return replace(case.certificate, rule=rule).to_bytes(), case.network


def change_number(case: SamplesCase, rng: Rng) -> tuple[bytes, Network] | None:
    """Change one number of the witness."""
    witness = changed(case.certificate.witness, rng, changed_number)
    return None if witness is None else (replace(case.certificate, witness=witness).to_bytes(), case.network)


def change_array(case: SamplesCase, rng: Rng) -> tuple[bytes, Network] | None:
    """Change a whole array of the witness."""
    witness = changed(case.certificate.witness, rng, changed_array)
    return None if witness is None else (replace(case.certificate, witness=witness).to_bytes(), case.network)


def change_names(case: SamplesCase, rng: Rng) -> tuple[bytes, Network]:
    """Drop, rename or add an array."""
    witness = dict(case.certificate.witness)
    forms = [{}, {**witness, "more": np.ones(1)}, {**witness, "multipliers/0/10000000000": np.ones(1)}]
    for name, array in witness.items():
        rest = {k: v for k, v in witness.items() if k != name}
        forms += [rest, *({**rest, other: array} for other in (name + "x", name + "/0", name.replace("/", "/1", 1)))]
    return replace(case.certificate, witness=pick(rng, forms)).to_bytes(), case.network


def half_a_tree(case: SamplesCase, rng: Rng) -> tuple[bytes, Network] | None:
    """Leave out one half of a part of a ball, with all that is proposed for it: what is left is a tree again."""
    network = Evaluator(case.network).steps.network
    proposal = from_arrays(case.certificate.witness, network, len(case.samples.labels))
    parts = proposal.parts
    if parts is None or not (parts.cuts >= 0).any():
        return None
    row = pick(rng, np.flatnonzero(parts.cuts[:, 0] >= 0))
    ends = [_end(parts.cuts, row + 1)]
    ends.append(_end(parts.cuts, ends[0]))
    start, stop = pick(rng, ((row + 1, ends[0]), (ends[0], ends[1])))
    rows = np.zeros(len(parts.cuts), dtype=np.bool_)
    rows[row] = rows[start:stop] = True
    witness = witness_of(replace(proposal, parts=parts.without(rows)))
    return replace(case.certificate, witness=witness).to_bytes(), case.network


def _end(cuts: Ints, start: int) -> int:
    """Return the row behind a tree that starts at a row."""
    level = np.cumsum(np.where((cuts[start:] == LEAF).all(axis=1), -1, 1))
    return start + 1 + int(np.argmax(level == -1))


MUTATIONS: Mapping[str, Mutation] = {
    "a bit of the file": files.flip_bit,
    "a bit of the arrays": files.flip_blob_bit,
    "cut and spliced": files.cut,
    "a field of the document": files.change_field,
    "the document's keys": files.change_keys,
    "a digest": files.change_digest,
    "the layout of an array": files.change_layout,
    "larger balls": larger_balls,
    "other balls": other_balls,
    "other samples": partial(other_samples, honest=False),
    "other samples, with their digest": partial(other_samples, honest=True),
    "another rule": change_rule,
    "a number of the witness": change_number,
    "an array of the witness": change_array,
    "the names of the arrays": change_names,
    "half of a tree": half_a_tree,
    "a bit of a weight": models.flip_weight_bit,
    "a slope of the model": models.change_slope,
}


def mutants(case: SamplesCase, seed: int, rounds: int) -> Iterator[Mutant]:
    """Yield `rounds` mutants of every kind that applies; the same seed yields the same."""
    return mutated(case, MUTATIONS, seed, rounds)


def fate_of(mutant: Mutant) -> Fate:
    """Check a mutant, and look for a wrong class where it is accepted."""
    try:
        certificate = LocalCertificate.from_bytes(mutant.content)
        valid = check_local(certificate, mutant.network).valid
    except Malformed:
        return "rejected"
    except Exception:
        return "crashed"
    if not valid:
        return "rejected"
    return "harmless" if _is_true(certificate, mutant.network) else "false"


def _is_true(certificate: LocalCertificate, network: Network) -> bool:
    """Whether no point was found in a ball whose class is another one."""
    samples, claim, network = certificate.samples, certificate.claim, strip_softmax(network)
    assert samples is not None
    rng = np.random.default_rng(0)
    for x, label in zip(samples.inputs, samples.labels, strict=True):
        points = x + claim.eps * _directions(rng, x.size, claim.norm).reshape(-1, *x.shape)
        if claim.box is not None:
            points = np.clip(points, *claim.box)
        outputs = evaluate(network, points).reshape(len(points), -1)
        margins = outputs[:, label][:, None] - outputs
        if (margins < -ROOM * (1.0 + np.abs(outputs).max())).any():
            return False
    return True


def _directions(rng: Rng, size: int, norm: str) -> Float:
    """Return points of the unit ball (N, size): along the axes, and random ones on the sphere."""
    found = rng.normal(size=(POINTS, size))
    match norm:
        case "l2":
            found /= np.linalg.norm(found, axis=1, keepdims=True)
        case "l1":
            found /= np.abs(found).sum(axis=1, keepdims=True)
        case _:
            found = np.sign(found)
    return np.concatenate([found, np.eye(size), -np.eye(size), np.zeros((1, size))])
