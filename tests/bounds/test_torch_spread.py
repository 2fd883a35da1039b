"""The fast adjoints of convolutions: the same numbers as the convolution's own inner products, whatever the layout."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from lipcert.bounds.local.products import products
from lipcert.bounds.torch_spread import spread


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_spread_is_the_adjoint_of_the_convolution(data):
    """<conv(x), y> = <x, spread(y)> for all shapes, strides, even and uneven padding, few and many channels."""
    draw = data.draw
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    before, behind = (draw(st.tuples(st.integers(0, 4), st.integers(0, 4))) for _ in range(2))
    size = draw(st.tuples(st.integers(4, 9), st.integers(4, 9)))
    inputs, outputs = draw(st.sampled_from([(1, 2), (2, 1), (5, 3)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    x = torch.randn((2, inputs, *size), dtype=torch.float64, generator=generator)
    weight = torch.randn((outputs, inputs, *kernel), dtype=torch.float64, generator=generator)
    padded = functional.pad(x, (before[1], behind[1], before[0], behind[0]))
    forward = functional.conv2d(padded, weight, None, stride)
    y = torch.randn(forward.shape, dtype=torch.float64, generator=generator)
    if draw(st.booleans()):
        y = y.contiguous(memory_format=torch.channels_last)
    back = spread(y, weight, stride, before, size)
    assert back.shape == x.shape
    torch.testing.assert_close((forward * y).sum(), (x * back).sum(), rtol=1e-12, atol=1e-10)


def test_spread_has_gradients_on_both_ways():
    for channels in (1, 8):
        y = torch.randn((2, 3, 4, 4), dtype=torch.float64, requires_grad=True)
        weight = torch.randn((3, channels, 3, 3), dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda v, w=weight: spread(v, w, (2, 2), (1, 1), (8, 8)), (y,))


@pytest.mark.parametrize("points", [1, 3])
def test_products_do_not_depend_on_the_layout(points):
    plain = torch.randn((3, 5, 4, 6, 7), dtype=torch.float64)
    last = plain.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    at = torch.randn((points, 4, 6, 7), dtype=torch.float64)
    expected = (plain * at[:, None]).flatten(2).sum(dim=2)
    for functions in (plain, last):
        torch.testing.assert_close(products(functions, at), expected, rtol=1e-12, atol=1e-12)
