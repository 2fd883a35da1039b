"""Threads of the numerical libraries are limited while narrow networks are bounded, and come back afterwards."""

from __future__ import annotations

import pytest
import torch
from threadpoolctl import threadpool_info

from lipcert.bounds import threads
from lipcert.bounds.threads import LARGE, NARROW, all_threads, suitable_threads
from lipcert.testing.build import matrices, mlp


@pytest.fixture(autouse=True)
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads.os, "getloadavg", lambda: (0.0, 0.0, 0.0))


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
                lapack = [pool["num_threads"] for pool in threadpool_info() if "scipy" in pool["filepath"]]
                assert set(lapack) <= {2}
                raise ZeroDivisionError
            assert torch.get_num_threads() == 1
        with all_threads(LARGE):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("size", [NARROW, NARROW + 1])
def test_one_thread_where_others_are_busy(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads.os, "getloadavg", lambda: (100.0, 0.0, 0.0))
    before = counts()
    with suitable_threads(mlp(matrices(1, 4, size, 3))):
        assert set(counts()) == {1}
        with all_threads(LARGE):
            assert set(counts()) == {1}
    assert counts() == before


def test_a_system_that_does_not_say_is_not_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> None:
        raise OSError

    monkeypatch.setattr(threads.os, "getloadavg", unknown)
    assert not threads.is_busy()
