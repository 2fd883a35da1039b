"""How many threads numerical libraries may use: one where the matrices are narrow, or the machine is busy.

For matrices of some dozens of rows a second thread gains nothing on an idle machine, and on a busy one the threads of
BLAS and OpenMP wait for each other by spinning: a network of 17 layers of 16 neurons took 70 s instead of 8 s on two
cores that others used too, and a factorisation of order 2048 between 0.3 and 2.8 s of processor time instead of 0.15.
Large factorisations of a solver on a narrow network say so: `all_threads`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from threadpoolctl import threadpool_limits

from lipcert.network.graph import Network

NARROW = 256  # neurons of the widest layer for which one thread is enough
LARGE = 1500  # order of a matrix from which a factorisation gains by more threads
_OUTSIDE: ContextVar[int | None] = ContextVar("threads of torch outside suitable_threads", default=None)


def is_busy() -> bool:
    """Whether others than this process have used more than half of the cores in the last minute, as far as is known."""
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):  # not on this system
        return False
    return load - torch.get_num_threads() > 0.5 * (os.cpu_count() or 1)


@contextmanager
def suitable_threads(network: Network) -> Iterator[None]:
    """Within it numpy, scipy and torch use one thread if a network's activation layers are narrow, or others busy."""
    sizes, busy = [node.size for _, node in network.activation_nodes()], is_busy()
    if max(sizes, default=0) > NARROW and not busy:
        yield
        return
    before = torch.get_num_threads()
    token = _OUTSIDE.set(1 if busy else before)
    try:
        with _threads(1):
            yield
    finally:
        _OUTSIDE.reset(token)


@contextmanager
def all_threads(order: int) -> Iterator[None]:
    """Within it they use as many as outside `suitable_threads`, if a matrix of this order is large and none is busy."""
    outside = _OUTSIDE.get()
    if order < LARGE or outside is None or outside == torch.get_num_threads():
        yield
        return
    with _threads(outside):
        yield


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    with threadpool_limits(limits=count):
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)
