"""Each command: what it prints, what it writes, how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from sample_documents import make_comparison, make_refusal, make_report

from lipcert import api
from lipcert.bounds.registry import find_method
from lipcert.cli import diagnosis
from lipcert.errors import Unsupported, UnsupportedError
from lipcert.network.graph import Network
from lipcert.proof.refusal import Refused
from lipcert.report.json import PUBLISHED, published_schema, schema_id
from lipcert.results import DoctorResult, Finding


def obeys_its_schema(document: dict[str, Any]) -> bool:
    kind = next(kind for kind in PUBLISHED if schema_id(kind) == document["schema"])
    jsonschema.validate(document, published_schema(kind), cls=jsonschema.Draft202012Validator)
    return True


@pytest.fixture(autouse=True)
def no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds without the search for a lower bound, which takes seconds."""
    monkeypatch.setattr(api, "_lower", lambda network, norm, seconds: 0.5)


# --- bound and check ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_bound_writes_a_certificate_that_check_accepts(cli: Any, loaded: Any, tmp_path: Path, norm: str) -> None:
    found = cli("bound", "m.onnx", "--norm", norm, "--out", "m.lipcert", "--json")
    assert found.code == 0
    document = found.document
    assert obeys_its_schema(document)
    assert document["certificate"] == "m.lipcert"
    assert float.fromhex(document["bound_hex"]) == document["bound"] > 0
    assert document["level"] == "verified"
    checked = cli("check", "m.lipcert", "m.onnx", "--json")
    assert checked.code == 0
    assert obeys_its_schema(checked.document)
    assert (checked.document["valid"], checked.document["bound"]) == (True, document["bound"])
    assert [path.name for path in tmp_path.iterdir()] == ["m.lipcert"]


def test_bound_for_people_is_rounded_up(cli: Any, loaded: Any) -> None:
    exact = cli("bound", "m.onnx", "--json").document["bound"]
    found = cli("bound", "m.onnx")
    shown = next(line for line in found.out.splitlines() if line.startswith("l2 bound"))
    assert float(shown.split("≤")[1].split("(")[0].replace(",", "")) >= exact
    assert "verified" in shown
    assert "(estimate" in found.out


def test_a_folder_that_is_missing_is_noticed_before_the_work(cli: Any, loaded: Any) -> None:
    for arguments in (("bound", "m", "--out", "no/m.lipcert"), ("compare", "m", "--html", "no/x.html")):
        found = cli(*arguments)
        assert found.code == 2
        assert "'no'" in found.err
        assert found.out == ""
    assert loaded == []


def test_check_refuses_another_model(cli: Any, loaded: Any, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("bound", "m", "--norm", "linf", "--out", "m.lipcert").code == 0
    other = Network(network.nodes[:-1])
    monkeypatch.setattr(api, "load", lambda model, **_: other)
    found = cli("check", "m.lipcert", "m")
    assert found.code == 3
    assert found.out.startswith("invalid")
    assert "another structure" in found.out
    document = cli("check", "m.lipcert", "m", "--json")
    assert document.code == 3
    assert document.document["valid"] is False
    assert obeys_its_schema(document.document)


def test_check_of_something_that_is_no_certificate(cli: Any, loaded: Any, tmp_path: Path) -> None:
    (tmp_path / "m.lipcert").write_bytes(b"\x00" * 40)
    found = cli("check", "m.lipcert", "m")
    assert (found.code, found.out) == (3, "")
    assert cli("check", "missing.lipcert", "m").code == 2


def test_model_options_reach_the_reader(cli: Any, loaded: Any) -> None:
    cli(
        "bound",
        "package.module:make@w.safetensors",
        "--input-shape",
        "1x28x28",
        "--mean",
        "0.1,0.2",
        "--std",
        "63/255",
        "--allow-pickle",
        "--norm",
        "linf",
    )
    model, settings = loaded[-1]
    assert model == "package.module:make@w.safetensors"
    assert settings == {
        "input_shape": [1, 28, 28],
        "mean": [0.1, 0.2],
        "std": [63 / 255],
        "allow_pickle": True,
    }


# --- inspect --------------------------------------------------------------------------------------------------


def test_inspect_shows_every_node(cli: Any, loaded: Any) -> None:
    found = cli("inspect", "m.onnx")
    assert found.code == 0
    for word in ("fc1", "act", "fc2 [bold]", "relu", "Dense", "[0, 1]", "hidden neurons"):
        assert word in found.out
    document = cli("inspect", "m.onnx", "--json").document
    assert obeys_its_schema(document)
    assert [node["parameters"] for node in document["nodes"]] == [0, 30, 0, 21]
    assert document["nodes"][2]["slopes"] == [0.0, 1.0]


def test_inspect_norms_are_upper_bounds(cli: Any, loaded: Any, network: Network) -> None:
    import numpy as np

    document = cli("inspect", "m.onnx", "--json").document
    for node, shown in zip(network.nodes, document["nodes"], strict=True):
        if shown["kind"] == "Dense":
            weight = node.op.weight.mid  # type: ignore[attr-defined]
            exact = float(np.linalg.svd(weight, compute_uv=False)[0])
            assert exact * (1 - 1e-12) <= shown["norm_l2"] <= exact * (1 + 1e-6)
            assert shown["norm_linf"] >= float(np.abs(weight).sum(axis=1).max()) * (1 - 1e-12)


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_inspect_lists_everything_unsupported(
    cli: Any, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    def load(model: Any, **_: Any) -> Network:
        raise UnsupportedError([Unsupported("n1", "Loop", "no rule"), Unsupported("n2", "If", "no rule")])

    monkeypatch.setattr(api, "load", load)
    found = cli("inspect", "m.onnx", *flags)
    assert found.code == 4
    assert all(word in found.out for word in ("n1", "Loop", "n2", "If"))
    assert found.err.startswith("lipcert: error: 2 unsupported")
    if flags:
        assert obeys_its_schema(found.document)
        assert len(found.document["unsupported"]) == 2


# --- compare --------------------------------------------------------------------------------------------------


def test_compare_runs_the_methods_asked_for(cli: Any, loaded: Any, tmp_path: Path) -> None:
    found = cli("compare", "m", "--methods", "product, absolute", "--norm", "linf", "--json", "--html", "c.html")
    assert found.code == 0
    assert obeys_its_schema(found.document)
    assert [row["method"] for row in found.document["rows"]] == ["product", "absolute"]
    bounds = [row["bound"] for row in found.document["rows"]]
    assert bounds[1] <= bounds[0]
    assert (tmp_path / "c.html").read_text().startswith("<!DOCTYPE html>")
    assert "running product" in found.err
    assert cli("compare", "m", "--methods", "product", "--json", "--quiet").err == ""


def test_compare_tells_refusals_apart_from_bounds(cli: Any, loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "compare", lambda network, **_: make_comparison())
    found = cli("compare", "m")
    assert found.code == 0
    assert "24.3664" in found.out
    assert "it is for l1, linf, not l2" in found.out
    nothing = make_comparison().model_copy(update={"rows": (make_refusal(),)})
    monkeypatch.setattr(api, "compare", lambda network, **_: nothing)
    assert cli("compare", "m").code == 5


def test_an_interrupted_comparison_shows_what_is_done(
    cli: Any, loaded: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ctrl-C in the second method: the row of the first is shown and written, under a name of its own."""
    arguments = ("compare", "m", "--methods", "product,absolute", "--norm", "linf", "--html", "c.html")
    (tmp_path / "c.html").write_text("an earlier page")

    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(find_method("absolute")), "propose", stop)
    found = cli(*arguments, "--json")
    assert found.code == 130
    assert obeys_its_schema(found.document)
    assert [row["method"] for row in found.document["rows"]] == ["product"]
    assert "interrupted after product" in found.err and "Traceback" not in found.err
    assert (tmp_path / "c.html").read_text() == "an earlier page"
    assert (tmp_path / "c.partial.html").read_text().startswith("<!DOCTYPE html>")
    monkeypatch.setattr(type(find_method("product")), "propose", stop)
    found = cli(*arguments)
    assert found.code == 130 and "before the first method was done" in found.err and not found.out


# --- certify --------------------------------------------------------------------------------------------------


def let_certify(monkeypatch: pytest.MonkeyPatch, threshold: float) -> None:
    made = make_report(200, threshold=threshold).model_copy(update={"records": None})
    monkeypatch.setattr(api, "certify", lambda network, data, **_: made)


@pytest.mark.parametrize(("threshold", "code"), [(0.5, 0), (0.999, 1)])
def test_certify_ends_with_the_verdict(
    cli: Any, loaded: Any, data: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, threshold: float, code: int
) -> None:
    let_certify(monkeypatch, threshold)
    found = cli("certify", "m", "--data", data, "--eps", "0.1", "--eps", "8/255", "--report", "a/b")
    assert found.code == code
    assert ("not met" in found.out) == (code == 1)
    folder = tmp_path / "a" / "b"
    assert {path.name for path in folder.iterdir()} == {"report.json", "report.html", "report.md", "junit.xml"}
    assert "report.html" in found.err
    assert obeys_its_schema(json.loads((folder / "report.json").read_text()))


def test_certify_in_json_is_pure(cli: Any, loaded: Any, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    let_certify(monkeypatch, 0.999)
    found = cli("certify", "m", "--data", data, "--eps", "0.1", "--json", "--quiet")
    assert found.code == 1
    assert obeys_its_schema(found.document)
    assert found.err == ""


def test_resume_needs_a_folder(cli: Any, loaded: Any, data: str) -> None:
    found = cli("certify", "m", "--data", data, "--eps", "0.1", "--resume")
    assert found.code == 2
    assert "--report DIR" in found.err


@pytest.mark.parametrize("eps", ["a", "1/0", "1/2/3", ""])
def test_a_wrong_eps_is_named(cli: Any, loaded: Any, data: str, eps: str) -> None:
    found = cli("certify", "m", "--data", data, "--eps", eps)
    assert found.code == 2
    assert "--eps" in found.err


def test_data_is_read_with_scale_and_limit(cli: Any, loaded: Any, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def certify(network: Any, dataset: Any, **_: Any) -> Any:
        seen.append(dataset)
        return make_report(200)

    monkeypatch.setattr(api, "certify", certify)
    assert cli("certify", "m", "--data", data, "--eps", "1", "--limit", "2", "--scale", "1/255").code == 0
    assert len(seen[0]) == 2
    found = cli("certify", "m", "--data", "missing.npz", "--eps", "1")
    assert found.code == 2
    assert "missing.npz" in found.err


@pytest.mark.parametrize("flags", [("--method", "global"), ("--method", "global", "--level", "verified-exec")])
def test_certify_for_real(cli: Any, loaded: Any, data: str, tmp_path: Path, flags: tuple[str, ...]) -> None:
    arguments = ("--data", data, "--eps", "1e-6", "--eps", "1/2", "--require", "bound <= 1e9", "--report", "r")
    found = cli("certify", "m", *arguments, *flags, "--json")
    assert found.code == 0, found.err
    document = found.document
    assert obeys_its_schema(document)
    assert json.loads((tmp_path / "r" / "report.json").read_text()) == document
    assert document["samples"] == 3
    assert list(document["certified_count"]) == ["1e-06", "0.5"]
    for key, certified in document["certified_count"].items():
        assert certified + document["unknown_count"][key] == document["clean_count"]
    assert document["bound"]["quantity"] == "features"
    assert document["bound"]["contributions"]
    page = (tmp_path / "r" / "report.html").read_text()
    assert "The features before the last linear layer" in page
    assert "Where the bound comes from" in page


# --- doctor ---------------------------------------------------------------------------------------------------


def test_doctor_looks_at_everything(cli: Any) -> None:
    found = cli("doctor", "--json")
    assert found.code == 0
    assert obeys_its_schema(found.document)
    topics = {finding["topic"] for finding in found.document["findings"]}
    assert topics == {"arithmetic", "checker", "method", "solver", "device", "software"}
    names = {finding["name"] for finding in found.document["findings"]}
    assert {"float64", "python-flint", "product", "CLARABEL", "SCS", "MOSEK", "cpu", "blas", "torch"} <= names
    for finding in found.document["findings"]:
        assert finding["status"] == "ok" or finding["remedy"] is not None or finding["topic"] == "device"


def test_doctor_for_people(cli: Any) -> None:
    found = cli("doctor")
    assert found.code == 0
    assert "CLARABEL" in found.out
    assert found.err == ""


def test_broken_arithmetic_ends_inconclusive(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise Refused("subnormal numbers are flushed to zero")

    monkeypatch.setattr(diagnosis, "require_ieee", refuse)
    found = cli("doctor", "--json")
    assert found.code == 5
    first = found.document["findings"][0]
    assert (first["status"], first["detail"]) == ("broken", "subnormal numbers are flushed to zero")


def test_remedies_are_shown(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = Finding(topic="solver", name="SCS", status="broken", detail="not installed", remedy="pip install scs")
    monkeypatch.setattr(diagnosis, "diagnose", lambda: DoctorResult(healthy=False, findings=(finding,)))
    found = cli("doctor")
    assert found.code == 5
    assert "not installed; pip install scs" in found.out
