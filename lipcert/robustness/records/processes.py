"""Several processes that share one run, as `torchrun` starts them: on the GPUs of a machine, or on several machines.

Each does its shard. At the end all of them learn the verdicts of all. Only results travel, over gloo; the processes
need no common disk. Where one dies, `torchrun` ends the others; their records stay, and a run with ``resume`` goes on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from lipcert.errors import InconclusiveError, UsageError
from lipcert.robustness.settings import Settings

PATIENCE = timedelta(days=7)  # for the slowest process; one that dies is noticed at once


@dataclass(frozen=True)
class Processes:
    """This process among those of a run.

    Attributes:
        rank: from 0. size: how many there are. local: rank among those of this machine.
    """

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this process is the one that speaks and writes the report."""
        return self.rank == 0

    def share(self, settings: Settings) -> Settings:
        """Return the settings of this process: its shard, and its GPU where each process takes one.

        Raises:
            UsageError: the settings ask for a shard already.
        """
        if self.size == 1:
            return settings
        if settings.shard is not None:
            raise UsageError("--shard and torchrun both divide the samples: leave one of them out")
        cuda = settings.device in ("auto", "cuda") and torch.cuda.is_available()
        device = f"cuda:{self.local % torch.cuda.device_count()}" if cuda else settings.device
        return replace(settings, shard=f"{self.rank + 1}/{self.size}", device=device)

    def home(self, folder: Path | None) -> Path | None:
        """Return the folder of this process's records in that of the run."""
        if folder is None or self.size == 1:
            return folder
        return folder / f"shard-{self.rank + 1}-of-{self.size}"

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, to all of them.

        Raises:
            InconclusiveError: another process is gone.
        """
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        try:
            distributed.all_gather_object(values, value)
        except RuntimeError as error:
            raise InconclusiveError(
                f"another process of this run is gone ({str(error).splitlines()[0]}); its records and ours stay, "
                "--resume goes on with them"
            ) from None
        return values


ALONE = Processes()


@contextmanager
def joined() -> Iterator[Processes]:
    """Join the processes that `torchrun` started; alone where it did not.

    Raises:
        UsageError: RANK, WORLD_SIZE and the address of the first process do not fit together.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if size == "1" or "RANK" not in os.environ:
        yield ALONE
        return
    try:
        processes = Processes(int(os.environ["RANK"]), int(size), int(os.environ.get("LOCAL_RANK", "0")))
        distributed.init_process_group("gloo", timeout=PATIENCE)
    except (ValueError, RuntimeError) as error:
        raise UsageError(f"the processes of this run do not find each other: {str(error).splitlines()[0]}") from None
    try:
        yield processes
    finally:
        distributed.destroy_process_group()
