"""Channels that take part: those with an input and an output along kernels that are not zero.

The others have no place in the barrier, and get multipliers that do not disturb (see `lipsdp._reduce`). What matters
of a kernel is, for each pair of channels, the sum of its absolute values: no symbol is larger at any frequency.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from lipcert.bounds.lipsdp._reduce import Rows, live_neurons
from lipcert.bounds.lipsdp._restore import fill_left_out
from lipcert.bounds.lipsdp_conv._family import Family, Group
from lipcert.network.enclosure import Float
from lipcert.proof.torus import Torus

Masks = list[npt.NDArray[np.bool_]]


def live_channels(torus: Torus) -> Masks:
    """Return a mask for each layer, the tail's last."""
    return live_neurons(*_sizes(torus))


def _sizes(torus: Torus) -> tuple[list[Rows], Masks]:
    """Return what each layer reads, the output's row last, and that no channel is linear."""
    sizes = _matrices(torus)
    return [{k: w} for k, w in enumerate(sizes)], [np.zeros(len(w), dtype=bool) for w in sizes[:-1]]


def _matrices(torus: Torus) -> list[Float]:
    sizes = [np.abs(layer.stencil.weight.mid).sum(axis=2) for layer in torus.layers]
    if torus.tail is not None:
        rows = [*(block.row for block in torus.tail.blocks), torus.tail.output]
        tail = [np.abs(row[k].mid) for k, row in enumerate(rows)]  # it is a chain
        return [*sizes, tail[0] * float(torus.pooling.mid), *tail[1:]]
    if torus.closing is not None:
        return [*sizes, np.abs(torus.closing.weight.mid).sum(axis=2)]
    return [*sizes, np.eye(torus.channels[-1])]


def restricted(family: Family, live: Masks) -> Family:
    """Return the family without all other channels."""
    if all(mask.all() for mask in live):
        return family
    keep = [torch.from_numpy(np.flatnonzero(mask)) for mask in live]

    def rows(group: Group) -> Group:
        weights = [w[:, k] for w, k in zip(group.weights, keep, strict=False)]
        weights = [weights[0], *(w[:, :, k] for w, k in zip(weights[1:], keep, strict=False))]
        last = None if group.last is None else group.last[:, :, keep[len(weights) - 1]]
        return Group(weights, last)

    return replace(
        family,
        groups=[rows(group) for group in family.groups],
        alpha=[a[k] for a, k in zip(family.alpha, keep, strict=True)],
        beta=[b[k] for b, k in zip(family.beta, keep, strict=True)],
    )


def filled(torus: Torus, live: Masks, multipliers: list[Float], f: float) -> list[Float]:
    """Return multipliers for all channels, given those of the live ones."""
    reach = [4.0 * np.maximum(np.abs(alpha), np.abs(beta)) ** 2 for alpha, beta in torus.slopes]
    whole = []
    for values, mask in zip(multipliers, live, strict=True):
        entries = np.zeros(mask.shape)
        entries[mask] = values
        whole.append(entries)
    fill_left_out(*_sizes(torus), whole, f, reach)
    return whole
