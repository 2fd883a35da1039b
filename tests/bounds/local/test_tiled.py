"""The two ways to narrow boxes of images agree, and samples are only given up where nothing is lost."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from strategies import random_network

from lipcert.bounds.local import crown
from lipcert.bounds.local.crown import margins, relax_network
from lipcert.bounds.local.hopes import Hopes
from lipcert.bounds.local.method import Crown
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.registry import find_local
from lipcert.bounds.local.tiled import Tiled
from lipcert.bounds.local.view import View
from lipcert.errors import UnsupportedError
from lipcert.network.builder import Builder
from lipcert.network.operators import Reshape
from lipcert.testing.build import RELU, conv, dense

KINDS = ("conv", "relu", "max_pool", "avg_pool", "residual", "scale", "elementwise", "concat")


def _convolutions(seed, channels=6):
    """Three convolutions and a dense layer on 8 x 8 images."""
    builder, rng, at = Builder((2, 8, 8)), np.random.default_rng(seed), 0
    for k, (before, after) in enumerate(((2, channels), (channels, channels), (channels, channels))):
        at = builder.add(conv(seed + k, (after, before, 3, 3), padding=((1, 1), (1, 1))), at)
        at = builder.add(RELU, at)
    flat = builder.add(Reshape(), at, shape=(64 * channels,))
    builder.add(dense(rng.normal(size=(4, 64 * channels)) / 8.0), flat)
    return builder.build()


def _both_ways(network, ball, monkeypatch, dtype):
    view = View(network, dtype=dtype)
    labels = view(ball.centre).argmax(dim=1)
    monkeypatch.setattr(crown, "_MANY", 1)
    tiled = relax_network(view, ball)
    monkeypatch.setattr(Tiled, "serves", lambda *_: False)
    plain = relax_network(view, ball)
    monkeypatch.undo()
    return (tiled.boxes, margins(tiled, labels)), (plain.boxes, margins(plain, labels))


@pytest.mark.parametrize(
    ("norm", "box"), [("l1", None), ("l2", None), ("linf", None), ("l2", (-1.0, 1.0)), ("linf", (-1.0, 1.0))]
)
def test_boxes_of_random_networks_are_the_same(norm, box, monkeypatch):
    tried, room = 0, 3e-3 if norm == "l2" and box else 1e-6  # the least value is searched for
    for seed in range(20):
        network, rng = random_network(seed, 5, KINDS), np.random.default_rng(seed)
        x = torch.from_numpy(rng.uniform(-1.0, 1.0, size=(2, *network.input_shape)))
        try:
            one, two = _both_ways(network, Ball.around(x, 0.2, norm, box), monkeypatch, torch.float64)
        except UnsupportedError:
            continue
        width = max(float((high - low).amax()) for low, high in two[0])
        ends = [end for box in one[0] for end in box], [end for box in two[0] for end in box]
        for mine, other in zip([*ends[0], one[1]], [*ends[1], two[1]], strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-9, atol=room * width)
        tried += any(len(node.shape) == 3 for node in network.nodes[2:])
    assert tried > 5


def test_float32_is_close_to_float64(monkeypatch):
    network, rng = _convolutions(1), np.random.default_rng(1)
    x = torch.from_numpy(rng.uniform(size=(3, 2, 8, 8)))
    wide, _ = _both_ways(network, Ball.around(x, 0.1, "l2"), monkeypatch, torch.float64)
    narrow, _ = _both_ways(network, Ball.around(x.float(), 0.1, "l2"), monkeypatch, torch.float32)
    torch.testing.assert_close(narrow[1].double(), wide[1], rtol=1e-4, atol=1e-4)


def test_a_bound_does_not_depend_on_the_other_samples():
    view, rng = View(_convolutions(2), dtype=torch.float64), np.random.default_rng(2)
    ball = Ball.around(torch.from_numpy(rng.uniform(size=(4, 2, 8, 8))), 0.3, "l2", (0.0, 1.0))
    together = relax_network(view, ball).boxes
    for b in range(4):
        for mine, other in zip(relax_network(view, ball.take(torch.tensor([b]))).boxes, together, strict=True):
            torch.testing.assert_close(mine[0][0], other[0][b], rtol=1e-12, atol=1e-12)


def test_derivatives_reach_the_centre():
    view = View(_convolutions(3), dtype=torch.float64)
    x = torch.rand((1, 2, 8, 8), dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    margins(relax_network(view, Ball.around(x, 0.1, "l2")), torch.tensor([0])).sum().backward()
    assert x.grad is not None and bool(x.grad.any())


@pytest.mark.parametrize("eps", [0.05, 0.2, 0.5, 1.0, 2.0, 8.0])
def test_only_hopeless_samples_are_given_up(eps):
    view, rng = View(_convolutions(4)), np.random.default_rng(4)
    x = torch.from_numpy(rng.uniform(size=(6, 2, 8, 8))).float()
    labels = view(x).argmax(dim=1)
    ball = Ball.around(x, eps, "l2")
    full, short = Crown().margins(view, ball, labels), find_local("crown").margins(view, ball, labels)
    assert (short <= full + 1e-4 * full.abs().clamp(max=1e9)).all()
    changed = (short < full - 1e-3 * full.abs().clamp(max=1e9)).any(dim=1)
    logits = view(x)
    clean = logits.gather(1, labels[:, None]) - logits
    assert (full[changed] < -3.0 * clean[changed]).logical_or(clean[changed] == 0).all()
    assert bool(changed.any()) == (eps >= 8.0) or eps in (1.0, 2.0)


def test_what_is_cheap_is_not_guessed():
    hopes = Hopes(torch.tensor([0]), 0.0)
    mask = torch.ones((1, 10), dtype=torch.bool)
    assert not hopes.spared(None, {1: None}, mask).any()  # type: ignore[arg-type]
