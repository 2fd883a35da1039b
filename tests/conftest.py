"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real networks and data sets that stands beside the repository and is never part of it."""
    folder = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not (folder / "MANIFEST.csv").exists():
        pytest.skip(f"the shared real networks are not here: {folder.name}/MANIFEST.csv is missing")
    return folder
