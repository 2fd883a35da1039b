"""Small runs with records, for the tests of everything that reads or writes them."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys

from lipcert.errors import LipcertError
from lipcert.robustness.attack import Attack
from lipcert.robustness.certifier import certify
from lipcert.robustness.records.processes import joined

QUICK = {"lower_seconds": 0.0, "attack": Attack(steps=5, restarts=1), "method": "crown", "device": "cpu"}


def run(network, data, **settings):
    return certify(network, data, **({"eps": (0.02, 0.1, 0.5)} | QUICK | settings))


def rows(folder):
    """The samples of a folder, by index; every line must be a whole one."""
    lines = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    samples = [line for line in lines if "index" in line]
    assert len({row["index"] for row in samples}) == len(samples)
    return {row["index"]: row for row in samples}


def verdicts(folder):
    """What a resumed run must give bit for bit, whatever its batches."""
    names = ("label", "predicted", "status", "stage", "level", "key")
    return {index: [row[name] for name in names] for index, row in rows(folder).items()}


def made(path):
    path.mkdir(parents=True, exist_ok=True)
    return path


def resume(network, data, folder, size, method, time_limit=None):
    """What a process that is killed was doing."""
    run(network, data, folder=folder, batch_size=size, resume=True, method=method, time_limit=time_limit)


def share(rank, port, network, data, settings):
    """One of two processes of a run; what it says goes to a file beside the run's folder."""
    found = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in found.items()})
    said = settings["folder"].with_suffix(f".{rank}")
    try:
        with joined() as processes:
            report = run(network, data, processes=processes, **settings)
        said.write_text(report.model_dump_json())
    except LipcertError as error:
        said.write_text(str(error))
        sys.exit(error.exit_code)


def forkserver():
    """Return what starts processes that have everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lipcert.robustness.certifier", "recorded"])
    first = context.Process(target=print, args=("",), kwargs={"end": ""})
    first.start()
    first.join()
    return context
