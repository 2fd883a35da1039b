"""How many threads numerical libraries may use: one where the matrices are narrow.

For matrices of some dozens of rows a second thread gains nothing on an idle machine, and on a busy one the threads of
BLAS and OpenMP wait for each other by spinning: a network of 17 layers of 16 neurons took 70 s instead of 8 s on two
cores that others used too. Large factorisations of a solver on such a network say so: `all_threads`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from threadpoolctl import threadpool_limits

from lipcert.network.graph import Network

NARROW = 128  # neurons of the widest layer for which one thread is enough
LARGE = 1500  # order of a matrix from which a factorisation gains by more threads
_OUTSIDE: ContextVar[int | None] = ContextVar("threads of torch outside suitable_threads", default=None)


@contextmanager
def suitable_threads(network: Network) -> Iterator[None]:
    """Within it numpy, scipy and torch use one thread if a network's activation layers are narrow."""
    sizes = [node.size for _, node in network.activation_nodes()]
    if max(sizes, default=0) > NARROW:
        yield
        return
    before = torch.get_num_threads()
    token = _OUTSIDE.set(before)
    with threadpool_limits(limits=1):
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)
            _OUTSIDE.reset(token)


@contextmanager
def all_threads(order: int) -> Iterator[None]:
    """Within it all use as many threads as torch outside `suitable_threads`, if a matrix of this order is large."""
    outside, inside = _OUTSIDE.get(), torch.get_num_threads()
    if order < LARGE or outside is None or outside == inside:
        yield
        return
    with threadpool_limits(limits=outside):
        torch.set_num_threads(outside)
        try:
            yield
        finally:
            torch.set_num_threads(inside)
