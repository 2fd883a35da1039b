"""Bounds of single outputs and of margins, on the command line and in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lipcert
from lipcert import api
from lipcert.errors import UsageError
from lipcert.network.graph import Network
from lipcert.proof.subject import subject
from lipcert.testing.truth import SLACK, jacobians_of

QUICK = {"method": "product", "lower_seconds": 0.0}


def command(cli: Any, *more: str) -> Any:
    return cli("bound", "m.onnx", "--method", "lipsdp", "--json", *more)


@pytest.fixture
def no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds without the search for a lower bound, which takes seconds."""
    monkeypatch.setattr(api, "_lower", lambda network, norm, seconds: 0.5)


@pytest.mark.parametrize(
    ("text", "quantity"),
    [("2", "logit 2"), ("0-2", "margin 0 2"), ("margins", "margins"), ("features", "features"), ("output", "output")],
)
@pytest.mark.usefixtures("no_search")
def test_certificates_come_back_from_the_check(cli: Any, loaded: Any, tmp_path: Path, text: str, quantity: str) -> None:
    found = command(cli, "--output", text, "--out", "m.lipcert")
    assert found.code == 0
    assert found.document["quantity"] == quantity
    assert (found.document["margins"] is not None) == (text == "margins")
    checked = cli("check", "m.lipcert", "m.onnx", "--json")
    assert (checked.code, checked.document["bound"]) == (0, found.document["bound"])


@pytest.mark.usefixtures("no_search")
def test_a_table_for_people(cli: Any, loaded: Any) -> None:
    found = cli("bound", "m.onnx", "--output", "margins")
    assert "l2 bound of the largest margin" in found.out
    assert "smallest margin" in found.out
    assert "l2 bound of the margin 2 0" in cli("bound", "m.onnx", "--output", "2-0").out


@pytest.mark.parametrize(
    ("text", "message"),
    [("3", "no output 3: the network has 3, counted from 0"), ("0-7", "no output 7"), ("1-1", "no quantity"),
     ("8-", "no output"), ("-1", "no output"), ("logit 1", "no output"), ("1.0", "no output"), ("", "no output")],
)  # fmt: skip
def test_other_outputs_are_usage_errors(cli: Any, loaded: Any, text: str, message: str) -> None:
    found = cli("bound", "m.onnx", f"--output={text}")
    assert found.code == 2
    assert message in found.err
    assert len(found.err.strip().splitlines()) == 1


@pytest.mark.parametrize("output", [2, (0, 2), (2, 1), "margin 0 1", "logit 0"])
def test_the_lower_bound_is_of_the_same_quantity(network: Network, output: Any) -> None:
    found = lipcert.bound(network, method="lipsdp", output=output, lower_seconds=0.3)
    rows = np.stack(jacobians_of(subject(network, found.quantity)))
    truth = np.linalg.norm(rows, axis=-1).max()
    assert found.lower is not None
    assert truth * (1.0 - SLACK) <= found.value
    assert 0.5 * truth <= found.lower <= truth * (1.0 + SLACK)  # all regions of this network are among the Jacobians


def test_the_lower_bound_of_margins_is_that_of_the_largest(network: Network) -> None:
    found = lipcert.bound(network, method="lipsdp", output="margins", lower_seconds=0.3)
    assert found.margins is not None and found.lower is not None
    i, j = np.unravel_index(found.margins.argmax(), found.margins.shape)
    rows = np.stack(jacobians_of(network))
    assert found.lower <= np.linalg.norm(rows[:, i] - rows[:, j], axis=-1).max() * (1.0 + SLACK)


@pytest.mark.parametrize("output", [-1, 3, (0, 3), (1, 1), (0, 1, 2), (0,), 1.0, None, "nothing", "logit -1"])
def test_other_outputs_are_refused_in_python(network: Network, output: Any) -> None:
    with pytest.raises(UsageError, match=r"no output|no quantity"):
        lipcert.bound(network, output=output, **QUICK)
