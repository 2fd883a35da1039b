"""Rows of convolutions as windows: the same numbers as with full images, and affine maps the same as dense matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import networks

from lipcert.bounds.local import patches
from lipcert.bounds.local.crown import margins, relax_network
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.view import View
from lipcert.network import Builder, Enclosure
from lipcert.network.linear import apply_adjoint, coefficients, dense_matrix
from lipcert.network.operators import Conv, Dense, Elementwise, Reshape, Sum


def _exact(array):
    return Enclosure.exact(np.float32(array))


def _conv(rng, builder, x, channels, kernel=3, stride=1, padding=((1, 1), (1, 1))):
    inputs = builder.nodes[x].shape[0]
    weight = _exact(rng.normal(size=(channels, inputs, kernel, kernel)) / kernel)
    op = Conv(weight, _exact(rng.normal(size=(channels, 1, 1)) * 0.1), (stride, stride), padding, (1, 1))
    return builder.add(op, x)


def residual_network(seed):
    """Strides, uneven padding, two residual blocks with different windows on both ways, a dense layer."""
    rng = np.random.default_rng(seed)
    builder = Builder((2, 9, 8))
    relu = Elementwise("relu")
    x = builder.add(relu, _conv(rng, builder, 0, 3, stride=2, padding=((1, 0), (1, 1))))
    inner = builder.add(relu, _conv(rng, builder, x, 3))
    x = builder.add(relu, builder.add(Sum((1, -1)), _conv(rng, builder, inner, 3), x))
    wide = _conv(rng, builder, builder.add(relu, _conv(rng, builder, x, 2)), 4, stride=2)
    x = builder.add(Sum((1, 1)), wide, _conv(rng, builder, x, 4, kernel=1, stride=2, padding=((0, 0), (0, 0))))
    x = builder.add(Elementwise("tanh"), x)
    x = builder.add(Reshape(), x, shape=(builder.nodes[x].size,))
    weight = rng.normal(size=(4, builder.nodes[x].size)) / 4
    builder.add(Dense(_exact(weight), _exact(rng.normal(size=4))), x)
    return builder.build()


def _boxes_and_margins(view, parts, monkeypatch):
    monkeypatch.setattr(patches, "IN_PARTS", parts)
    rng = np.random.default_rng(5)
    ball = Ball.around(torch.from_numpy(rng.normal(size=(3, *view.network.input_shape))), 0.2)
    relaxed = relax_network(view, ball)
    return [end for box in relaxed.boxes for end in box] + [margins(relaxed, torch.tensor([0, 1, 2]))]


@pytest.mark.parametrize("seed", range(4))
def test_windows_give_what_full_images_give(seed, monkeypatch):
    view = View(residual_network(seed), dtype=torch.float64)
    full, windows = (_boxes_and_margins(view, parts, monkeypatch) for parts in (math.inf, 0.0))
    for one, two in zip(full, windows, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(networks(("conv", "conv_transpose", "avg_pool", "scale", "gather", "reshape", "dense"), 3), st.integers(0, 999))
def test_linear_maps_agree_with_dense_matrices(network, seed):
    view, rng = View(network, dtype=torch.float64), np.random.default_rng(seed)
    for linear in view.maps.values():
        matrix = dense_matrix(linear.op, linear.source, linear.target)
        x, y = rng.normal(size=(3, *linear.source)), rng.normal(size=(3, *linear.target))
        near = {"rtol": 1e-11, "atol": 1e-11}
        applied = linear.apply(torch.from_numpy(x)).flatten(1).numpy()
        np.testing.assert_allclose(applied, x.reshape(3, -1) @ matrix.T, **near)
        sent = linear.adjoint(torch.from_numpy(y)).numpy()
        np.testing.assert_allclose(sent.reshape(3, -1), y.reshape(3, -1) @ matrix, **near)
        numbers = coefficients(linear.op)
        adjoint = apply_adjoint(linear.op, y, None if numbers is None else numbers.mid, linear.source)
        np.testing.assert_allclose(sent, adjoint, **near)
        size = np.abs(x)
        magnified = linear.magnify(torch.from_numpy(size)).flatten(1).numpy()
        assert (magnified >= size.reshape(3, -1) @ np.abs(matrix).T - 1e-11).all()
        assert (linear.row_sums.flatten().numpy() >= np.abs(matrix).sum(axis=1) - 1e-11).all()
        assert (linear.row_lengths.flatten().numpy() >= np.linalg.norm(matrix, axis=1) - 1e-11).all()
        rows = torch.from_numpy(rng.integers(0, len(matrix), size=(1, 4)))
        found = linear.rows(rows)[0].flatten(1).numpy()
        np.testing.assert_allclose(found, matrix[rows[0].numpy()], **near)
        windows = patches.rows_of(linear, rows)
        if windows is not None:
            np.testing.assert_allclose(windows.full()[0].flatten(1).numpy(), matrix[rows[0].numpy()], **near)
