"""Certificates of samples: what is saved is proved again from the file and the model alone, and nothing else is."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.networks import open_network
from lipcert import api
from lipcert.bounds.local.certify import certify_samples
from lipcert.bounds.local.method import Intervals
from lipcert.bounds.local.registry import LOCAL_METHODS, find_local
from lipcert.errors import UsageError
from lipcert.network.evaluate import evaluate
from lipcert.network.operators import Elementwise
from lipcert.proof import Certificate, Claim, Malformed, Reason
from lipcert.proof.local import (
    LOCAL_RULES,
    NOTHING,
    BallClaim,
    Evaluator,
    LocalCertificate,
    Proposal,
    Samples,
    any_certificate,
    check_local,
)
from lipcert.proof.local.witness import from_arrays, to_arrays
from lipcert.proof.refusal import Refused
from lipcert.testing.build import matrices, mlp
from lipcert.testing.mutations import FAULTS, Mutant
from lipcert.testing.mutations.samples import MUTATIONS, SamplesCase, fate_of, mutants
from lipcert.testing.zoo import zoo

NETWORK = mlp(matrices(5, 4, 8, 6, 3))
DERIVED = [method.name for method in LOCAL_METHODS if method.derived]
EPS = 0.15
NEEDY = 0.3  # a radius at which CROWN proves fewer samples than multipliers do


def _samples(network=NETWORK, count=12):
    x = np.random.default_rng(3).normal(size=(count, *network.input_shape))
    return Samples.of(x, evaluate(network, x).reshape(count, -1).argmax(axis=1))


def _made(method="anchored", eps=EPS, norm="l2", box=None, network=NETWORK):
    return certify_samples(network, find_local(method), _samples(network), eps, norm, box)


@pytest.mark.parametrize("method", DERIVED)
@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("box", [None, (-4.0, 4.0)])
def test_what_is_saved_is_proved_again(method, norm, box, tmp_path):
    if norm not in find_local(method).norms:
        pytest.skip("l2 alone")
    found = _made(method, 0.1, norm, box)
    assert found.rows.any()
    found.certificate.save(tmp_path / "a.lipcert")
    read = any_certificate((tmp_path / "a.lipcert").read_bytes())
    assert isinstance(read, LocalCertificate)
    assert (read.claim, read.rule, set(read.witness)) == (
        found.certificate.claim,
        found.certificate.rule,
        set(found.certificate.witness),
    )
    assert len(read.samples.labels) == found.rows.sum()
    verdict = check_local(read, NETWORK)
    assert verdict.valid and verdict.reason is Reason.PROVED


def test_one_sample_and_a_batch_of_many():
    network = mlp(matrices(6, 3, 5, 2))
    many = _samples(network, 40)  # more than are derived at once
    found = certify_samples(network, find_local("anchored"), many, 0.02)
    assert found.rows.sum() > 32 and check_local(found.certificate, network).valid
    one = Samples(many.inputs[found.rows][:1], many.labels[found.rows][:1])
    assert check_local(certify_samples(network, find_local("crown"), one, 0.01).certificate, network).valid


def test_nothing_is_certified_where_nothing_holds():
    samples = _samples()
    wrong = Samples(samples.inputs, (samples.labels + 1) % 3)
    found = certify_samples(NETWORK, find_local("anchored"), wrong, 0.01)
    assert not found.rows.any() and found.certificate is None


def test_samples_may_be_given_or_stored():
    whole = _made().certificate
    bare = LocalCertificate.from_bytes(replace(whole, samples=None).to_bytes())
    assert check_local(bare, NETWORK).reason is Reason.OTHER_DATA
    assert check_local(bare, NETWORK, whole.samples).valid
    other = Samples(whole.samples.inputs + 1e-9, whole.samples.labels)
    for certificate in (bare, whole):
        assert check_local(certificate, NETWORK, other).reason is Reason.OTHER_DATA
    narrow = Samples(whole.samples.inputs[:, :2], whole.samples.labels)
    lie = replace(whole, samples=narrow, claim=replace(whole.claim, data_digest=narrow.digest))
    assert check_local(lie, NETWORK).reason is Reason.OTHER_DATA


def test_the_digest_tells_shapes_and_labels_apart():
    x, y = np.arange(8.0), np.array([0, 1])
    digests = {Samples.of(x.reshape(shape), y).digest for shape in ((2, 4), (2, 2, 2), (2, 1, 4))}
    assert len(digests | {Samples.of(x.reshape(2, 4), y[::-1]).digest}) == 4
    single = x.astype(np.float32).reshape(2, 4)
    assert Samples.of(single, y).digest == Samples.of(x.reshape(2, 4), y.astype(np.int32)).digest


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rule": "local-multipliers/v2"}, Reason.UNKNOWN_RULE),
        ({"rule": "product/v1"}, Reason.UNKNOWN_RULE),
        ({"graph_digest": "0" * 64}, Reason.OTHER_STRUCTURE),
        ({"weights_digest": "0" * 64}, Reason.OTHER_WEIGHTS),
        ({"witness": {}}, Reason.NOT_ROBUST),
        ({"witness": {"more": np.ones(1)}}, Reason.REFUSED),
    ],
)
def test_reasons(change, reason):
    made = _made("anchored", NEEDY).certificate
    assert made.witness
    assert check_local(replace(made, **change), NETWORK).reason is reason


def test_larger_balls_and_other_norms_need_their_own_proof():
    made = _made().certificate
    assert check_local(replace(made, claim=replace(made.claim, eps=5.0)), NETWORK).reason is Reason.NOT_ROBUST
    assert check_local(replace(made, claim=replace(made.claim, norm="linf")), NETWORK).reason is Reason.WRONG_NORM
    assert check_local(made, NETWORK, engine="exact").reason is Reason.NOT_IN_ENGINE
    assert check_local(made, mlp(matrices(7, 4, 8, 6, 3))).reason is Reason.OTHER_WEIGHTS


def test_networks_without_a_local_rule_are_refused():
    smooth = mlp(matrices(5, 4, 8, 6, 3), Elementwise("sin"))
    samples = _samples(smooth)
    made = LocalCertificate.of(smooth, BallClaim("l2", 0.1, None, samples.digest), "local-lines/v1", {}, samples)
    verdict = check_local(made, smooth)
    assert verdict.reason is Reason.REFUSED and "sin" in verdict.text


@pytest.mark.parametrize(
    "wrong",
    [
        {"eps": 0.0},
        {"eps": float("inf")},
        {"norm": "l3"},
        {"box": (1.0, 0.0)},
        {"box": (0.0, float("nan"))},
    ],
)
def test_wrong_claims_cannot_be_made(wrong):
    with pytest.raises(ValueError):
        replace(BallClaim("l2", 0.1, None, "0" * 64), **wrong)


def test_wrong_samples_cannot_be_made():
    for x, y in (
        (np.array([[np.nan]]), [0]),
        (np.ones((2, 1)), [0]),
        (np.ones((1, 1), dtype=np.int64), [0]),
        (np.ones((0, 1)), np.zeros(0, dtype=np.int64)),
        (np.ones((1, 1)), [0.5]),
    ):
        with pytest.raises(ValueError):
            Samples.of(x, np.array(y))


def test_kinds_of_certificates_are_told_apart():
    plain = Certificate.of(NETWORK, Claim("l2", "output", 100.0), "product/v1", {})
    assert isinstance(any_certificate(plain.to_bytes()), Certificate)
    made = _made().certificate
    with pytest.raises(Malformed):
        Certificate.from_bytes(made.to_bytes())
    with pytest.raises(Malformed):
        LocalCertificate.from_bytes(plain.to_bytes())
    with pytest.raises(Malformed, match="schema"):
        any_certificate(made.to_bytes().replace(b"lipcert.samples/v1", b"lipcert.samples/v2"))


# --- the witness ------------------------------------------------------------------------------------------------


def _proposal(rng, first, second, read):
    def slopes(*shape):
        return tuple(rng.normal(size=shape) for _ in "lu")

    rows = np.stack([rng.permutation(6)[:4] for _ in range(3)])
    multipliers = [{first: np.ones((3, 8)), second: rng.uniform(size=(3, 6))} for _ in range(2)]
    return Proposal(
        {first: slopes(3, 1, 8), second: slopes(3, 2, 6)}, {read: (rows, {first: slopes(3, 8, 8)})}, multipliers
    )


def test_a_proposal_is_read_as_it_was_written():
    network = Evaluator(NETWORK).steps.network
    (first, _), (second, node) = network.activation_nodes()
    written = to_arrays(_proposal(np.random.default_rng(0), first, second, node.inputs[0]))
    again = to_arrays(from_arrays(written, network, 3))
    assert set(again) == set(written) and len(written) == 4 + 3 + 4
    assert all((again[name] == written[name]).all() for name in written)
    assert to_arrays(NOTHING) == {}
    part = to_arrays(from_arrays(written, network, 3).take(np.array([True, False, True])))
    assert all((part[name] == written[name][[0, 2]]).all() for name in written)


@pytest.mark.parametrize(
    "name", ["margins/2/low", "margins/99/low", "entries/3/rows", "multipliers/0/1", "multipliers/0/2"]
)
@pytest.mark.parametrize(
    "array", [np.ones(3), np.ones((3, 8), dtype=np.int64), np.full((3, 8), 9), np.ones((2, 8)), np.ones((3, 0))]
)
def test_arrays_of_wrong_shape_or_type_are_refused(name, array):
    network = Evaluator(NETWORK).steps.network
    (first, _), (second, node) = network.activation_nodes()
    assert (first, node.inputs[0]) == (2, 3)
    good = to_arrays(_proposal(np.random.default_rng(0), first, second, 3))
    with pytest.raises(Refused):
        from_arrays({**good, name: array}, network, 3)
    with pytest.raises(Refused):
        from_arrays({k: v for k, v in good.items() if k != "entries/3/rows"}, network, 3)


# --- mutations --------------------------------------------------------------------------------------------------


def _cases():
    leaky = mlp(matrices(8, 3, 5, 3), Elementwise("leaky_relu", (np.array(0.1),)))
    for network, method, eps, norm, box in (
        (NETWORK, "anchored", NEEDY, "l2", None),
        (leaky, "alpha-crown", 0.1, "linf", (-5.0, 5.0)),
        (leaky, "intervals", 0.02, "l1", None),
        (zoo()["MaxMin"], "pruned", 0.05, "l2", (-5.0, 5.0)),
    ):
        yield SamplesCase(_made(method, eps, norm, box, network).certificate, network)


@pytest.mark.parametrize("number", range(4))
def test_no_mutant_is_believed(number):
    case = list(_cases())[number]
    assert fate_of(Mutant("none", case.content, case.network)) == "harmless"
    made = list(mutants(case, number, 8))
    fates = Counter((mutant.kind, fate_of(mutant)) for mutant in made)
    assert not [entry for entry in fates if entry[1] in FAULTS]
    assert sum(count for (_, fate), count in fates.items() if fate == "rejected") > 0.5 * len(made)


def test_every_kind_of_mutation_is_made_and_a_believing_checker_is_found_out(monkeypatch):
    case = next(_cases())
    made = list(mutants(case, 1, 6))
    assert {mutant.kind for mutant in made} == set(MUTATIONS) - {"half of a tree"}  # see `test_on_parts`
    monkeypatch.setattr(
        "lipcert.testing.mutations.samples.check_local", lambda *_: check_local(case.certificate, NETWORK)
    )
    assert {"false"} & {fate_of(mutant) for mutant in made}


# --- doors ------------------------------------------------------------------------------------------------------


def test_the_command_line_checks_it(shared_data, tmp_path):
    network, images, labels = open_network(shared_data, "models/marabou/mnist2x10.onnx")
    made = certify_samples(network, find_local("anchored"), Samples.of(images[:10], labels[:10]), 0.05)
    assert made.rows.sum() >= 5
    file = tmp_path / "samples.lipcert"
    made.certificate.save(file)
    result = api.check(file, str(shared_data / "models/marabou/mnist2x10.onnx"))
    assert result.valid and result.level == "verified" and result.bound is None
    assert (result.balls.samples, result.balls.eps) == (made.rows.sum(), 0.05)
    with pytest.raises(UsageError, match="no bound"):
        api.check(file, network, requirements=["bound <= 1"])


class _Bare(Intervals):
    rule = None


def test_rules_have_a_method_each():
    assert {method.rule for method in LOCAL_METHODS if method.derived} == set(LOCAL_RULES)
    with pytest.raises(UsageError, match="no verified form"):
        certify_samples(NETWORK, _Bare(), _samples(), 0.1)
    with pytest.raises(UsageError, match="linf"):
        certify_samples(NETWORK, find_local("anchored"), _samples(), 0.1, "linf")
