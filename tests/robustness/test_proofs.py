"""Certificates of the samples that local methods certified: they check, and nothing else does."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from small_networks import labelled, random_chain

from lipcert import api
from lipcert.bounds.local.certify import certify_samples
from lipcert.bounds.local.joining import join
from lipcert.bounds.local.method import Crown
from lipcert.bounds.local.registry import find_local
from lipcert.errors import UsageError
from lipcert.network import Enclosure
from lipcert.proof.local import LocalCertificate, Samples, any_certificate, check_local
from lipcert.proof.reasons import Reason
from lipcert.report import wording
from lipcert.report.json import published_schema
from lipcert.results import Report
from lipcert.robustness import proofs
from lipcert.robustness.attack import Attack
from lipcert.robustness.certifier import certify

EPS = (0.02, 0.1, 0.3)
QUICK = {"lower_seconds": 0.0, "attack": Attack(steps=8, restarts=2), "quantity": "features"}


@pytest.fixture(scope="module")
def case():
    network = random_chain(3, (6, 12, 12, 4))
    images, labels = labelled(network, 40)
    labels[::8] = (labels[::8] + 1) % 4
    return network, (images, labels)


@pytest.fixture(scope="module")
def made(case, tmp_path_factory):
    """A run with proofs: its folder and its report."""
    folder = tmp_path_factory.mktemp("run")
    return folder, _run(case, folder)


def _run(case, folder, **settings):
    return certify(*case, **({"eps": EPS, "folder": folder, "proofs": True} | QUICK | settings))


def _read(path) -> LocalCertificate:
    found = any_certificate(Path(path).read_bytes())
    assert isinstance(found, LocalCertificate)
    return found


def _last(folder):
    """Of each sample that a local method certified last: its index, with method and eps."""
    lines = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    for row in (line for line in lines if "status" in line):
        held = [k for k, status in enumerate(row["status"]) if status == "certified"]
        if held and row["stage"][held[-1]] != "global":
            yield row["index"], row["stage"][held[-1]], EPS[held[-1]]


def _bytes(folder):
    return {path.name: path.read_bytes() for path in (folder / "proofs").iterdir()}


def test_proofs_check_and_are_what_counted(case, made):
    network, (images, labels) = case
    folder, report = made
    wanted = {}
    for index, method, eps in _last(folder):
        wanted.setdefault((method, eps), set()).add(images[index].astype(np.float64).tobytes() + bytes([labels[index]]))
    assert len(wanted) >= 2
    found = {}
    for file in report.proofs:
        certificate = _read(file.path)
        assert check_local(certificate, network).valid
        claim, samples = certificate.claim, certificate.samples
        assert (claim.norm, claim.eps, claim.box, len(samples.labels)) == ("l2", file.eps, None, file.samples)
        rows = {x.tobytes() + bytes([y]) for x, y in zip(samples.inputs, samples.labels.tolist(), strict=True)}
        found.setdefault((file.method, file.eps), set()).update(rows)
    assert found == wanted
    assert {Path(file.path).name for file in report.proofs} == set(_bytes(folder))
    assert {f"{method}-{eps:g}.lipcert" for method, eps in wanted} <= set(_bytes(folder))


def test_the_report_names_files_and_commands(made):
    folder, report = made
    (note,) = (note for note in report.notes if note.startswith("proofs/"))
    commands = " ".join(step.command for step in wording.recheck(report))
    jsonschema.validate(json.loads(report.model_dump_json(by_alias=True)), published_schema(Report))
    total = len(list(_last(folder)))
    assert f"{total} of the {total} samples" in note and "not proved again" not in note
    for file in report.proofs:
        assert f"{Path(file.path).name} ({file.samples})" in note
        assert f"lipcert check {file.path} " in commands


def test_a_resumed_run_writes_the_same(case, made, tmp_path):
    def stop(done, total):
        if done >= 12:
            raise KeyboardInterrupt

    whole = _bytes(made[0])
    with pytest.raises(KeyboardInterrupt):
        _run(case, tmp_path, batch_size=4, progress=stop)
    assert not (tmp_path / "proofs").exists()
    (tmp_path / "proofs").mkdir()
    (tmp_path / "proofs" / "crown-7.lipcert").write_bytes(b"of an earlier run")
    _run(case, tmp_path, resume=True, batch_size=7)
    assert _bytes(tmp_path) == whole


def test_radii_that_are_searched_are_proved_at_the_radii_of_the_run(case, tmp_path):
    report = _run(case, tmp_path, radius=True, method="crown")
    assert report.proofs and all(check_local(_read(file.path), case[0]).valid for file in report.proofs)


def test_one_file_where_witnesses_are_alike(case):
    network, (images, labels) = case
    parts = [
        certify_samples(network, find_local("anchored"), Samples.of(images[k : k + 5], labels[k : k + 5]), 0.1)
        for k in range(1, 31, 5)
    ]
    parts = [part.certificate for part in parts if part.certificate is not None]
    joined = join(parts)
    assert len(joined) < len(parts)
    assert all(check_local(one, network).valid for one in joined)
    held = Counter(x.tobytes() for one in joined for x in one.samples.inputs)
    assert held == Counter(x.tobytes() for one in parts for x in one.samples.inputs)


def test_what_is_not_proved_again_is_said(case, tmp_path, monkeypatch):
    """One sample that does not come out again is in no file, and in the note."""
    whole = _run(case, tmp_path / "a", method="crown")
    lost = _read(whole.proofs[0].path).samples.inputs[0]
    bound = Crown._bound

    def forgetful(self, view, ball, labels):
        found = bound(self, view, ball, labels)
        found.margins[(ball.centre.double().numpy() == lost).all(axis=1)] = -1.0
        return found

    prove = proofs.SampleCertifier.prove

    def later(self, *arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Crown, "_bound", forgetful)
            return prove(self, *arguments)

    monkeypatch.setattr(proofs.SampleCertifier, "prove", later)
    report = _run(case, tmp_path / "b", method="crown")
    count = sum(file.samples for file in whole.proofs)
    assert sum(file.samples for file in report.proofs) == count - 1
    (note,) = (note for note in report.notes if note.startswith("proofs/"))
    assert f"{count - 1} of the {count} samples" in note and note.endswith("; 1 were not proved again")
    assert not any((_read(file.path).samples.inputs == lost).all(axis=1).any() for file in report.proofs)


def test_short_memory_makes_the_same_proofs_one_by_one(case, made, tmp_path, monkeypatch):
    prove = proofs.SampleCertifier.prove

    def narrow(self, method, samples, *rest):
        if len(samples.labels) > 1:
            raise MemoryError
        return prove(self, method, samples, *rest)

    monkeypatch.setattr(proofs.SampleCertifier, "prove", narrow)
    report = _run(case, tmp_path)
    assert sum(file.samples for file in report.proofs) == sum(file.samples for file in made[1].proofs)
    assert all(check_local(_read(file.path), case[0]).valid for file in report.proofs)


def test_no_file_where_local_methods_certify_nothing(case, tmp_path):
    report = _run(case, tmp_path, method="intervals", eps=(1e-9,))
    assert report.proofs == () and not _bytes(tmp_path)
    assert "proofs/ is empty: local methods certified no sample" in report.notes


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"level": "numerical"}, "level verified, not numerical"),
        ({"level": "verified-exec"}, "level verified, not verified-exec"),
        ({"folder": None}, "folder"),
        ({"method": "global"}, "local methods"),
        ({"top_k": 2}, "top_k"),
    ],
)
def test_proofs_that_cannot_be_are_refused_first(case, tmp_path, wrong, why):
    with pytest.raises(UsageError, match=why) as caught:
        _run(case, **({"folder": tmp_path} | wrong))
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_a_single_output_is_refused(tmp_path):
    network = random_chain(0, (6, 8, 1))
    with pytest.raises(UsageError, match="one output"):
        _run((network, (np.zeros((2, 6), np.float32), np.array([0, 1]))), tmp_path)


# --- what a check refuses ---------------------------------------------------------------------------------------


def _changed(network):
    """The network with the last bit of one weight turned."""
    weight = network.nodes[1].op.weight.mid.copy()
    weight[0, 0] = np.nextafter(weight[0, 0], np.inf)
    op = replace(network.nodes[1].op, weight=Enclosure.exact(weight))
    return replace(network, nodes=(network.nodes[0], replace(network.nodes[1], op=op), *network.nodes[2:]))


def test_a_changed_weight_sample_label_or_radius_is_refused(case, made):
    network = case[0]
    for file in made[1].proofs:
        certificate = _read(file.path)
        samples = certificate.samples
        assert check_local(certificate, _changed(network)).reason is Reason.OTHER_WEIGHTS
        moved = Samples(samples.inputs.copy(), samples.labels)
        moved.inputs[0, 0] = np.nextafter(moved.inputs[0, 0], np.inf)
        turned = Samples(samples.inputs, (samples.labels + 1) % 4)
        for other in (moved, turned):
            assert check_local(replace(certificate, samples=other), network).reason is Reason.OTHER_DATA
        lie = replace(certificate, samples=turned, claim=replace(certificate.claim, data_digest=turned.digest))
        assert check_local(lie, network).reason is Reason.NOT_ROBUST
        raised = replace(certificate, claim=replace(certificate.claim, eps=10.0))
        assert check_local(raised, network).reason is Reason.NOT_ROBUST


@pytest.fixture(scope="module")
def proof(made) -> LocalCertificate:
    return max((_read(file.path) for file in made[1].proofs), key=lambda one: len(one.samples.labels))


def _checked(certificate, network, folder, data, scale=None):
    certificate.save(folder / "a.lipcert")
    return api.check(folder / "a.lipcert", network, data=data, scale=scale)


def test_a_check_on_data_finds_the_samples_among_them(case, proof, tmp_path):
    network, (images, labels) = case
    np.savez(tmp_path / "all.npz", images=images, labels=labels)
    for data in (tmp_path / "all.npz", (images, labels)):
        assert _checked(proof, network, tmp_path, data).valid
    assert _checked(proof, network, tmp_path, (images * 2.0, labels), 0.5).valid
    for wrong in ((images[20:], labels[20:]), (images, (labels + 1) % 4), (images * 2.0, labels)):
        found = _checked(proof, network, tmp_path, wrong)
        assert not found.valid and found.code == "other-data" and "not in the data" in found.reason
    with pytest.raises(UsageError, match="do not fit"):
        _checked(proof, network, tmp_path, (images[:, :3], labels))


def test_where_only_the_digest_is_stored_the_data_are_all_of_them_in_order(case, proof, tmp_path):
    network, (images, labels) = case
    bare, samples = replace(proof, samples=None), proof.samples
    assert _checked(bare, network, tmp_path, None).code == "other-data"
    inputs = samples.inputs.astype(np.float32)
    found = _checked(bare, network, tmp_path, (inputs, samples.labels))
    assert found.valid and found.balls.samples == len(inputs) > 1
    for wrong in ((inputs[::-1], samples.labels[::-1]), (inputs[1:], samples.labels[1:]), (images, labels)):
        assert _checked(bare, network, tmp_path, wrong).code == "other-data"
    raised = replace(bare, claim=replace(bare.claim, eps=10.0))
    assert _checked(raised, network, tmp_path, (inputs, samples.labels)).code == "not-robust"


def test_data_go_with_certificates_of_samples_only(case, made):
    network, data = case
    with pytest.raises(UsageError, match="about no samples"):
        api.check(made[0] / "bound.lipcert", network, data=data)
    other = api.check(made[1].proofs[0].path, _changed(network), data=(np.zeros((1, 2)), np.zeros(1, int)))
    assert other.code == "other-weights"
