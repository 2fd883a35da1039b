"""Threads of the numerical libraries are limited while narrow networks are bounded, and come back afterwards."""

from __future__ import annotations

import pytest
import torch
from threadpoolctl import threadpool_info

from lipcert.bounds.threads import LARGE, NARROW, all_threads, suitable_threads
from lipcert.testing.build import matrices, mlp


def counts() -> list[int]:
    return [torch.get_num_threads(), *(pool["num_threads"] for pool in threadpool_info())]


def test_one_thread_where_layers_are_narrow_and_all_of_them_after_an_error() -> None:
    before = counts()
    with pytest.raises(ZeroDivisionError), suitable_threads(mlp(matrices(1, 4, NARROW, 3))):
        assert set(counts()) == {1}
        raise ZeroDivisionError
    assert counts() == before


def test_wide_layers_keep_their_threads() -> None:
    before = counts()
    with suitable_threads(mlp(matrices(1, 4, NARROW + 1, 3))):
        assert counts() == before


def test_large_factorisations_take_all_threads_that_there_were_outside() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with suitable_threads(mlp(matrices(1, 4, 8, 3))):
            with all_threads(LARGE - 1):
                assert torch.get_num_threads() == 1
            with pytest.raises(ZeroDivisionError), all_threads(LARGE):
                assert torch.get_num_threads() == 2
                raise ZeroDivisionError
            assert torch.get_num_threads() == 1
        with all_threads(LARGE):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
