"""A command line in the same process, away from every settings file, on a tiny network instead of a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lipcert import api
from lipcert.cli import app
from lipcert.network.builder import Builder
from lipcert.network.enclosure import Enclosure
from lipcert.network.graph import Network
from lipcert.network.operators import Dense, Elementwise


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The JSON document; fails where anything else stands on stdout."""
        found: dict[str, Any] = json.loads(self.out)
        return found


Cli = Callable[..., Outcome]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run lipcert with arguments in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIPCERT_DEBUG", raising=False)

    def run(*arguments: str) -> Outcome:
        capsys.readouterr()
        code = app.run(arguments)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def data(tmp_path: Path) -> str:
    """The name of a small data file in the folder where commands run."""
    np.savez(tmp_path / "d.npz", images=np.zeros((3, 4), dtype=np.float32), labels=np.arange(3))
    return "d.npz"


@pytest.fixture
def network() -> Network:
    """A small dense network whose second layer's name looks like markup."""
    generator = np.random.default_rng(3)
    builder = Builder((4,))
    hidden = builder.add(_dense(generator, 6, 4), 0, name="fc1")
    active = builder.add(Elementwise("relu"), hidden, name="act")
    builder.add(_dense(generator, 3, 6), active, name="fc2 [bold]")
    return builder.build()


def _dense(generator: np.random.Generator, rows: int, columns: int) -> Dense:
    return Dense(Enclosure(generator.normal(size=(rows, columns))), Enclosure(generator.normal(size=rows)))


@pytest.fixture
def loaded(network: Network, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, Any]]]:
    """Let every model be the small network; collects what `load` was asked for."""
    calls: list[tuple[Any, dict[str, Any]]] = []

    def load(model: Any, **settings: Any) -> Network:
        calls.append((model, settings))
        return network

    monkeypatch.setattr(api, "load", load)
    return calls
