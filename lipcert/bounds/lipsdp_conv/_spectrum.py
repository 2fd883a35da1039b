"""From a network on a torus to a family of chains."""

from __future__ import annotations

import numpy as np
import torch

from lipcert.bounds.lipsdp_conv._family import Family, Group
from lipcert.proof.lifted import Lifted
from lipcert.proof.torus import Stencil, Torus


def family_of(torus: Torus) -> Family:
    """Return the chains of all frequencies, at the centres of all enclosures; the tail is a chain."""

    def symbol(stencil: Stencil) -> torch.Tensor:
        real, imaginary, _ = torus.symbol(stencil, slice(None))
        return torch.complex(torch.from_numpy(real), torch.from_numpy(imaginary))

    weights = [symbol(layer.stencil) for layer in torus.layers]
    alpha = [torch.from_numpy(layer.alpha.copy()) for layer in torus.layers]
    beta = [torch.from_numpy(layer.beta.copy()) for layer in torus.layers]
    if torus.tail is None:
        eye = torch.eye(torus.channels[-1], dtype=torch.complex128).expand(len(weights[0]), -1, -1)
        return Family([Group(weights, eye if torus.closing is None else symbol(torus.closing))], alpha, beta)
    rows = _rows(torus.tail, float(torus.pooling.mid))
    alpha += [torch.from_numpy(np.array(block.alpha)) for block in torus.tail.blocks]
    beta += [torch.from_numpy(np.array(block.beta)) for block in torus.tail.blocks]
    if len(rows) == 1:  # chains of one length: one stack, in which only w = 0 has an output that is not zero
        last = torch.zeros((len(weights[0]), *rows[0].shape[1:]), dtype=torch.complex128)
        last[:1] = rows[0]
        return Family([Group(weights, last)], alpha, beta)
    first = Group([*(w[:1] for w in weights), *rows[:-1]], rows[-1])
    return Family([first, Group([w[1:] for w in weights], None)], alpha, beta)


def _rows(tail: Lifted, pooling: float) -> list[torch.Tensor]:
    rows = [*(block.row for block in tail.blocks), tail.output]
    matrices = [row[k].mid * (pooling if k == 0 else 1.0) for k, row in enumerate(rows)]
    return [torch.from_numpy(np.array(m)).to(torch.complex128)[None] for m in matrices]
