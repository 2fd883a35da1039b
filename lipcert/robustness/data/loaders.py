"""Labelled data in a torch DataLoader: all its batches, as two arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, RandomSampler

from lipcert.errors import UsageError

Array = npt.NDArray[Any]


def collect(loader: DataLoader[Any], limit: int | None) -> tuple[Array, Array, tuple[str, ...]]:
    """Go through a loader once.

    Args:
        loader: gives batches (images, labels), as they are fed to the network; what follows in a batch is left out.
        limit: no more batches are drawn than so many samples need.

    Returns:
        Images (N, ...), labels (N,), and notes on what a reader of the report should know of the loader.

    Raises:
        UsageError: the loader cannot be read, is empty, or gives something else.
    """
    images: list[Array] = []
    labels: list[Array] = []
    try:
        for batch in loader:
            pair = _pair(batch)
            images.append(pair[0])
            labels.append(pair[1])
            if limit is not None and sum(map(len, labels)) >= limit:
                break
        if images:
            return np.concatenate(images), np.concatenate(labels), _notes(loader)
    except UsageError:
        raise
    except Exception as error:  # the user's own code runs here, and may raise anything
        raise UsageError(
            f"the DataLoader cannot be read ({type(error).__name__}: {error}); it must give batches (images, labels) "
            "of tensors of one shape, so that pictures need ToTensor()"
        ) from None
    raise UsageError("the DataLoader is empty: it gave no batch")


def _pair(batch: Any) -> tuple[Array, Array]:
    if not (isinstance(batch, (tuple, list)) and len(batch) >= 2):
        kind = type(batch).__name__
        raise UsageError(f"the DataLoader gives batches of type {kind}: pairs (images, labels) are needed")
    images, labels = (
        part.detach().cpu().numpy() if isinstance(part, torch.Tensor) else np.asarray(part) for part in batch[:2]
    )
    return images, labels


def _notes(loader: DataLoader[Any]) -> tuple[str, ...]:
    notes = ["the samples are as the DataLoader gives them: eps is in the units behind its transforms"]
    if isinstance(loader.sampler, RandomSampler):
        notes.append("the DataLoader shuffles: samples are numbered in the order in which they were drawn")
    if loader.drop_last:
        notes.append("the DataLoader leaves out an incomplete last batch")
    return tuple(notes)
