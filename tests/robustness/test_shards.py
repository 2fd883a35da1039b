"""Several processes that share one run: as torchrun starts them, and one of them killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from recorded import forkserver, made, run, share, verdicts
from safetensors.torch import save_file

from lipcert.errors import InconclusiveError, UsageError
from lipcert.results import Report
from lipcert.robustness.records.merge import read_folder
from lipcert.robustness.records.processes import ALONE, Processes, joined
from lipcert.robustness.settings import Settings

FACTORY = """\
import torch

def make():
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
"""
COUNT = 60


def _pair(context, network, data, **settings):
    """Start two processes that know of each other by the variables that torchrun sets."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pair = [context.Process(target=share, args=(rank, port, network, data, settings)) for rank in range(2)]
    for process in pair:
        process.start()
    return pair


def _ended(process):
    process.join(120.0)
    assert process.exitcode is not None
    return process.exitcode


def _same(report, other):
    """Whether two reports agree in all that depends on verdicts alone."""
    for name in ("samples", "clean_count", "certified_count", "attacked_count", "unknown_count", "per_class", "level"):
        assert getattr(report, name) == getattr(other, name), name
    assert report.histogram.counts == other.histogram.counts
    assert report.mean_certified_radius == pytest.approx(other.mean_certified_radius, rel=1e-12)
    assert report.provenance.samples_sha256 == other.provenance.samples_sha256
    assert report.provenance.settings == other.provenance.settings


def test_two_processes_are_one_run(network, data, tmp_path):
    whole = run(network, data, folder=made(tmp_path / "whole"))
    pair = _pair(forkserver(), network, data, folder=made(tmp_path / "out"))
    assert [_ended(process) for process in pair] == [0, 0]
    for rank in range(2):  # both know everything
        report = Report.model_validate_json((tmp_path / f"out.{rank}").read_text())
        _same(report, whole)
        assert report.records == str(tmp_path / "out" / "records.jsonl")
    assert verdicts(tmp_path / "out") == verdicts(tmp_path / "whole")
    assert not list((tmp_path / "out").glob("shard-*"))


def test_one_is_killed_and_a_resumed_run_finishes(network, data, tmp_path):
    """A killed process leaves its records; the other one says so and keeps its own; later ones go on."""
    whole, context = run(network, data, folder=made(tmp_path / "whole")), forkserver()
    first, second = _pair(context, network, data, folder=made(tmp_path / "out"), batch_size=1)
    shard, deadline = tmp_path / "out" / "shard-2-of-2" / "records.jsonl", time.monotonic() + 120.0
    while not (shard.exists() and shard.read_bytes().count(b'"part"') >= 3):
        assert time.monotonic() < deadline and second.exitcode is None
        time.sleep(0.002)
    os.kill(second.pid, signal.SIGKILL)
    assert _ended(second) == -signal.SIGKILL
    assert _ended(first) == InconclusiveError.exit_code
    assert "another process of this run is gone" in (tmp_path / "out.0").read_text()
    kept = sum(len(log.verdicts) for log in read_folder(tmp_path / "out"))
    assert COUNT // 2 + 3 <= kept < COUNT

    pair = _pair(context, network, data, folder=tmp_path / "out", batch_size=25, resume=True)
    assert [_ended(process) for process in pair] == [0, 0]
    report = Report.model_validate_json((tmp_path / "out.1").read_text())
    _same(report, whole)
    assert verdicts(tmp_path / "out") == verdicts(tmp_path / "whole")
    assert not list((tmp_path / "out").glob("shard-*"))
    (log,) = read_folder(tmp_path / "out")
    assert {part.shard for part in log.parts.values()} == {"1/2", "2/2"}
    assert sum(part.samples for part in log.parts.values()) == COUNT  # nothing was done twice


@pytest.mark.slow
def test_torchrun_itself(tmp_path):
    (tmp_path / "net.py").write_text(FACTORY)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4)).eval()
    save_file(model.state_dict(), tmp_path / "net.safetensors")
    images = torch.rand(COUNT, 6)
    np.savez(tmp_path / "d.npz", images=images.numpy(), labels=model(images).argmax(dim=1).numpy())
    asked = ["net:make@net.safetensors", "--input-shape", "6", "--data", "d.npz", "--eps", "0.02", "--json"]
    asked += ["--method", "crown", "--device", "cpu", "--report"]
    reports = []
    for name, start in (("one", []), ("two", ["-m", "torch.distributed.run", "--nproc-per-node", "2"])):
        done = subprocess.run(
            [sys.executable, *start, "-m", "lipcert", "certify", *asked, name],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        reports.append(Report.model_validate_json(done.stdout))  # one of them speaks
    _same(*reports)
    assert verdicts(tmp_path / "one") == verdicts(tmp_path / "two")


# --- what needs no second process


def test_alone_where_nobody_started_others(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with joined() as processes:
        assert processes is ALONE and processes.gather(7) == [7]
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    with joined() as processes:
        assert processes is ALONE


@pytest.mark.parametrize(("name", "value"), [("RANK", "one"), ("WORLD_SIZE", "many"), ("MASTER_PORT", None)])
def test_an_environment_that_makes_no_sense(monkeypatch, name, value):
    for known, given in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(known, given)
    monkeypatch.delenv("MASTER_PORT", raising=False)
    if value is not None:
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="do not find each other"), joined():
        pass


def test_shares_are_a_partition(tmp_path):
    shares = [Processes(rank, 3, rank).share(Settings(eps=(0.1,), device="cpu")) for rank in range(3)]
    assert [share.shard for share in shares] == ["1/3", "2/3", "3/3"]
    assert Processes(1, 3).home(tmp_path) == tmp_path / "shard-2-of-3" and ALONE.home(tmp_path) == tmp_path
    with pytest.raises(UsageError, match="both divide"):
        Processes(0, 2).share(Settings(eps=(0.1,), shard="1/2"))


def test_a_fresh_run_leaves_nothing_of_an_older_one(network, data, tmp_path):
    run(network, data, folder=made(tmp_path / "shard-2-of-3"), shard="2/3")
    run(network, data, folder=tmp_path, limit=9)
    assert len(read_folder(tmp_path)) == 1
    run(network, data, folder=tmp_path, resume=True, limit=9)
