"""How many threads numerical libraries may use: one where the matrices are narrow.

For matrices of some dozens of rows a second thread gains nothing on an idle machine, and on a busy one the threads of
BLAS and OpenMP wait for each other by spinning: a network of 17 layers of 16 neurons took 70 s instead of 8 s on two
cores that others used too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

from lipcert.network.graph import Network

NARROW = 128  # neurons of the widest layer for which one thread is enough
FEW = 1500  # neurons in all for which it is: beyond, solvers for all multipliers factorise large matrices


@contextmanager
def suitable_threads(network: Network) -> Iterator[None]:
    """Within it numpy, scipy and torch use one thread if a network's activation layers are narrow and not too many."""
    sizes = [node.size for _, node in network.activation_nodes()]
    if max(sizes, default=0) > NARROW or sum(sizes) > FEW:
        yield
        return
    before = torch.get_num_threads()
    with threadpool_limits(limits=1):
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)
