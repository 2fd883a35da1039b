"""Batch sizes from measured memory and time: one sample at first, grown while there is room.

Where a run has a time limit, batches are so small that they end before it, going by what samples took so far: it is
passed by one sample's time at most, about.

What a batch is made of decides no verdict; sizes may differ from run to run. (Rounding may differ a little with the
size of a batch: `prover` and `attack` do what is close to a border again, alone.)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lipcert.bounds.memory import PeakMemory
from lipcert.robustness.stages.clock import Clock

FIRST = 1  # samples of the first batch
GROWTH = 4  # from one batch to the next
UNMEASURED = 16  # samples of a batch where memory cannot be measured
SHARE = 0.4  # of the memory that is free
CPU_BYTES = 3 * 2**29  # beside what the rest of a run needs; larger batches are no faster on a CPU
_GROUP = Path("/sys/fs/cgroup")
_WORDS = ("can't allocate memory", "not enough memory", "CUDA out of memory")

Array = npt.NDArray[Any]


def ran_out(error: BaseException) -> bool:
    """Whether an error means that memory was short."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


class Batches:
    """Cuts work into batches that fit the memory of a device.

    Args of the constructor:
        device: where the work is done.
        most: samples of a batch at most.
        clock: of the run; when it expires, samples that are left get nothing.

    Attributes:
        size: of the next batch. failed: samples that did not even fit alone, so far.
    """

    def __init__(self, device: torch.device, most: int, clock: Clock | None = None) -> None:
        self._device, self._most, self._clock = device, max(1, most), clock or Clock()
        self.size, self.failed = min(FIRST, self._most), 0
        self._each, self._largest = 0.0, 0  # bytes per sample, and samples of the batch that they are known from
        self._seconds = 0.0  # per sample, of the last batch

    def run(self, count: int, work: Callable[[slice], Array], nothing: Array) -> Array:
        """Do `count` samples batch by batch.

        Args:
            count: of samples.
            work: returns one row per sample of a slice.
            nothing: the row of a sample for which there is no memory or no time.
        """
        found: list[Array] = []
        start = 0
        while start < count:
            if self._clock.expired:
                found.append(np.stack([np.array(nothing)] * (count - start)))
                break
            size = min(float(self.size), self._clock.samples(self._seconds))
            part = slice(start, min(count, start + int(size)))
            rows = self._attempt(part, work)
            if rows is None and part.stop - start == 1:
                self.failed += 1
                rows = np.array(nothing)[None]
            if rows is not None:
                found.append(rows)
                start = part.stop
        return np.concatenate(found) if found else np.array(nothing)[None][:0]

    def _attempt(self, part: slice, work: Callable[[slice], Array]) -> Array | None:
        """Try a batch; None where memory was short, with a smaller size for the next."""
        size, gauge, start = part.stop - part.start, _gauge(self._device), time.perf_counter()
        try:
            rows = work(part)
        except (MemoryError, RuntimeError) as error:
            if not ran_out(error):
                raise
            self.size = self._most = max(1, size // 2)
        else:
            self._seconds = (time.perf_counter() - start) / size
            self._learn(size, gauge())
            return rows
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _learn(self, size: int, used: int | None) -> None:
        if used is None:  # nothing can be measured here: sizes that are small for every network
            self.size = min(self._most, UNMEASURED)
            return
        each = used / size  # of one sample alone it may be mostly what is set up once: larger batches know better
        self._each = each if size >= self._largest else max(self._each, each)
        self._largest = max(size, self._largest)
        grown = GROWTH * self.size if size == self.size else self.size
        self.size = max(1, min(self._most, grown, int(_room(self._device) / max(self._each, 1.0))))


def _gauge(device: torch.device) -> Callable[[], int | None]:
    """Return a function that says how many bytes were needed at most since now, in addition."""
    if device.type != "cuda":
        return PeakMemory().read
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    return lambda: int(torch.cuda.max_memory_allocated(device) - before)


def _room(device: torch.device) -> float:
    """Return the bytes that a batch may take."""
    if device.type == "cuda":
        return SHARE * float(torch.cuda.mem_get_info(device)[0])
    free = _free()
    return CPU_BYTES if free is None else min(CPU_BYTES, SHARE * free)


def _free() -> float | None:
    """Return the bytes of memory that are free, in the control group too, where the system tells it."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(float(line.split()[1]) * 1024.0 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    try:
        limit, used = (float((_GROUP / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no such group, or "max": no limit
        return free
    return min(free, max(0.0, limit - used))
