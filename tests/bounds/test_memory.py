"""The peak of resident memory: what is taken and given back within a stretch of work is seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lipcert.bounds import memory
from lipcert.bounds.engine import compare
from lipcert.bounds.memory import PeakMemory
from lipcert.testing.build import matrices, mlp

SIZE = 96 * 2**20


def take() -> None:
    np.ones(SIZE // 8).sum()


def measured() -> PeakMemory:
    peak = PeakMemory()
    if peak.read() is None:
        pytest.skip("this system does not tell the peak of resident memory")
    return peak


def test_a_peak_within_is_seen():
    peak = measured()
    take()
    found = peak.read()
    assert found is not None and 0.9 * SIZE <= found < 1.6 * SIZE


def test_earlier_peaks_do_not_count():
    take()
    peak = measured()
    found = peak.read()
    assert found is not None and found < 0.5 * SIZE


@pytest.mark.parametrize("status", [None, "VmPeak:\t 1 kB\n", "VmHWM:\t many\n", "VmHWM:\t 12 pages\n"])
def test_what_is_not_told_is_not_guessed(status, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(memory, "_PROCESS", tmp_path)
    if status is not None:
        (tmp_path / "status").write_text(status)
    assert PeakMemory().read() is None


def test_without_the_right_to_reset_nothing_is_told(tmp_path: Path, monkeypatch):
    (tmp_path / "status").write_text("VmHWM:\t 12 kB\nVmRSS:\t 10 kB\n")
    (tmp_path / "clear_refs").mkdir()
    monkeypatch.setattr(memory, "_PROCESS", tmp_path)
    assert PeakMemory().read() is None


def test_rows_of_a_comparison_tell_memory_and_why_there_is_no_bound():
    measured()
    huge = mlp([1e200 * w for w in matrices(2, 4, 5, 3)])
    served, refused, failed = compare(huge, ["product"], "l1")[0], *compare(huge, ["absolute", "product"], "l2")
    assert refused.error == "refused: it is for l1, linf, not l2" and refused.memory is None
    for row in (served, failed):
        assert row.error is not None and row.error.startswith("failed: ") and row.memory is not None
    small = compare(mlp(matrices(3, 4, 5, 3)), ["product"])[0]
    assert small.error is None and small.memory is not None and small.memory < SIZE
