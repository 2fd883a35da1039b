"""What a plan says of the stages that it leaves out."""

from __future__ import annotations

import numpy as np
import pytest
from small_networks import random_chain

from lipcert.robustness.certifier import certify


@pytest.mark.parametrize(("activation", "said"), [("sin", True), ("relu", False)])
def test_that_no_local_method_is_run_is_said_in_the_report(activation: str, said: bool) -> None:
    images = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    network = random_chain(1, (4, 9, 3), activation)
    report = certify(network, (images, np.zeros(4, dtype=np.int64)), eps=[0.1], lower_seconds=0.0)
    notes = [note for note in report.notes if note.startswith("no local method is run: ")]
    assert len(notes) == said
    assert all("sin" in note and "--level numerical" in note for note in notes)
