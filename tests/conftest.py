"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# One BLAS thread per test process: the suite runs in as many processes as there are cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real networks and data sets that stands beside the repository and is never part of it."""
    folder = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not (folder / "MANIFEST.csv").exists():
        pytest.skip(f"the shared real networks are not here: {folder.name}/MANIFEST.csv is missing")
    return folder
