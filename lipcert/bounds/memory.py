"""How much memory a stretch of work needed, as the operating system counted it.

Linux keeps the highest resident set of a process and lets the process itself reset it; so the peak is exact, and
includes what numpy, BLAS, torch and the solvers take, on all threads. (`tracemalloc` sees only Python's own
allocations, a sampling thread misses what comes and goes within one call.) Elsewhere nothing is measured.

What it does not see: memory that was resident before and is used again. So the number is what was needed in addition,
libraries that were loaded for the first time included.

Source: proc(5), ``/proc/pid/clear_refs`` and ``/proc/pid/status``.
"""

from __future__ import annotations

from pathlib import Path

_PROCESS = Path("/proc/self")
_RESET_PEAK = "5"


class PeakMemory:
    """Measures from its making on."""

    def __init__(self) -> None:
        self._start = _resident() if _reset_peak() else None

    def read(self) -> int | None:
        """Return by how many bytes the highest resident memory exceeded that at the start, or None where unknown."""
        peak = _entry("VmHWM")
        return None if self._start is None or peak is None else max(0, peak - self._start)


def _resident() -> int | None:
    return _entry("VmRSS")


def _reset_peak() -> bool:
    try:
        (_PROCESS / "clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def _entry(name: str) -> int | None:
    try:
        lines = (_PROCESS / "status").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        key, _, value = line.partition(":")
        if key == name and value.split()[1:] == ["kB"]:
            return int(value.split()[0]) * 1024
    return None
