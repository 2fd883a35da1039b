"""Torch's arithmetic: kept in full precision, and tested for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional

_FAST_MATH = ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE")


@contextmanager
def full_precision() -> Iterator[None]:
    """Switch TF32, reduced-precision accumulation and convolution by transforms off, and restore them after.

    cuDNN may pick Winograd or FFT convolutions, NNPACK too; both leave the dot-product model of rounding errors.
    oneDNN's convolutions are direct unless they are asked for by another name.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.nnpack.flags(enabled=False), torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def has_full(dtype: torch.dtype) -> bool:
    """Whether products and convolutions on the CPU are dot products in full float32 (or float64).

    Tried on integers of half the precision, so few in each row that every sum is exact in any order: shorter
    formats, and algorithms that transform their operands (Winograd, FFT, Strassen), miss the exact result.
    """
    if any(os.environ.get(name, "STRICT").upper() not in ("", "STRICT") for name in _FAST_MATH):
        return False
    bits = 11 if dtype == torch.float32 else 25
    images = _integers(bits, 16, 8, 8, 8)
    kernel, matrix = _sparse(bits, 16, 8, 3, 3), _sparse(bits, 64, 512)
    with torch.no_grad(), full_precision():
        convolved = functional.conv2d(images.to(dtype), kernel.to(dtype), padding=1).flatten(2)
        multiplied = functional.linear(images.flatten(1).to(dtype), matrix.to(dtype))
    windows = functional.unfold(images.to(torch.float64), 3, padding=1).to(torch.int64)  # only moves integers
    exact = torch.equal(convolved.to(torch.int64), kernel.flatten(1) @ windows)
    return exact and torch.equal(multiplied.to(torch.int64), images.flatten(1) @ matrix.T)


def _integers(bits: int, *shape: int) -> Tensor:
    """Return fixed integers between -2^(bits - 1) and 2^(bits - 1) that look random."""
    count = torch.Size(shape).numel()
    numbers: Tensor = (torch.arange(count) * 2654435761 + 12345) % 2**bits - 2 ** (bits - 1)
    return numbers.reshape(shape)


def _sparse(bits: int, rows: int, *shape: int) -> Tensor:
    """Return rows of integers of which only two are not zero."""
    numbers = _integers(bits, rows, *shape).reshape(rows, -1)
    length = numbers.shape[1]
    first = torch.arange(rows) * 7 % length
    keep = torch.zeros_like(numbers).scatter(1, torch.stack([first, (first + length // 2) % length], dim=1), 1)
    return (numbers * keep).reshape(rows, *shape)
