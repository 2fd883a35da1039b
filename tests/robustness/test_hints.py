"""Hints: each typical mistake is named where numbers show it, and nothing is said where they do not."""

from __future__ import annotations

import numpy as np
import pytest

from lipcert.network.builder import Builder
from lipcert.network.enclosure import Enclosure
from lipcert.network.graph import Network, Shape
from lipcert.network.operators import Dense, Elementwise, Reshape
from lipcert.robustness import hints
from lipcert.robustness.data.dataset import Dataset, make_dataset

CLASSES, SAMPLES = 8, 120


def make_network(shape: Shape) -> Network:
    generator, size = np.random.default_rng(5), int(np.prod(shape))
    builder = Builder(shape)
    flat = builder.add(Reshape(), 0, shape=(size,))
    hidden = builder.add(Dense(Enclosure(generator.normal(size=(40, size))), Enclosure(np.zeros(40))), flat)
    active = builder.add(Elementwise("relu"), hidden)
    last = Dense(Enclosure(generator.normal(size=(CLASSES, 40))), Enclosure(generator.normal(size=CLASSES)))
    builder.add(last, active)
    return builder.build()


def right_data(network: Network) -> Dataset:
    """Images around zero with the network's predictions as labels."""
    images = np.random.default_rng(6).uniform(-1, 1, size=(SAMPLES, *network.input_shape)).astype(np.float32)
    return make_dataset(images, hints._predictor(network)(images), "arrays", None, None)


def said(network: Network, images: np.ndarray, labels: np.ndarray, eps: float = 0.1) -> list[str]:
    heard: list[str] = []
    data = make_dataset(np.ascontiguousarray(images, dtype=np.float32), labels, "arrays", None, None)
    noted = hints.hinted(network, data, [eps], "l2", heard.append)
    assert list(noted.notes)[len(data.notes) :] == heard
    assert np.array_equal(noted.images[:], data.images[:])
    assert np.array_equal(noted.labels, data.labels)
    return heard


@pytest.mark.parametrize("shape", [(3, 4, 4), (48,)])
def test_nothing_is_said_of_what_is_right(shape: Shape) -> None:
    network = make_network(shape)
    data = right_data(network)
    assert said(network, data.images[:], data.labels) == []


@pytest.mark.parametrize(
    ("shape", "wrong", "words"),
    [
        ((3, 4, 4), lambda x: x[:, ::-1], "BGR"),
        ((3, 4, 4), lambda x: x.transpose(0, 2, 3, 1).reshape(x.shape), "look like HWC"),
        ((48,), lambda x: x.reshape(-1, 3, 4, 4).transpose(0, 2, 3, 1).reshape(x.shape), "look like HWC"),
        ((48,), lambda x: x.reshape(-1, 4, 4, 3).transpose(0, 3, 1, 2).reshape(x.shape), "takes HWC"),
        ((3, 4, 4), lambda x: x.swapaxes(2, 3), "on their side"),
        ((1, 7, 7), lambda x: x.swapaxes(2, 3), "on their side"),
        ((3, 4, 4), lambda x: (x + 1) / 2, "--mean 0.5 --std 0.5"),
        ((3, 4, 4), lambda x: x * np.float32(3) + np.float32(40), "--mean"),
    ],
)
def test_what_was_done_to_the_images_is_found(shape: Shape, wrong: object, words: str) -> None:
    network = make_network(shape)
    data = right_data(network)
    heard = said(network, wrong(data.images[:]), data.labels)  # type: ignore[operator]
    assert len(heard) == 1
    assert words in heard[0]


@pytest.mark.parametrize("shift", [1, -1])
def test_shifted_labels(shift: int) -> None:
    network = make_network((5,))
    data = right_data(network)
    heard = said(network, data.images[:], (data.labels + shift) % CLASSES)
    assert len(heard) == 1
    assert "shifted by one" in heard[0]


def test_few_samples_say_nothing() -> None:
    network = make_network((5,))
    data = right_data(network)
    few = hints.FEWEST - 1
    assert said(network, data.images[:few], (data.labels[:few] + 1) % CLASSES, eps=100.0) == []


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_a_radius_is_too_large_where_brute_force_finds_another_class(norm: str) -> None:
    generator = np.random.default_rng(7)
    images, labels = generator.uniform(size=(30, 6)).astype(np.float32), np.arange(30) % 3
    order = {"l1": 1, "l2": 2, "linf": np.inf}[norm]
    worst = max(
        min(np.linalg.norm(images[i] - images[j].astype(float), order) for j in range(30) if labels[j] != labels[i])
        for i in range(30)
    )
    assert hints._reach(images, labels, norm) == pytest.approx(worst, rel=1e-12)  # type: ignore[arg-type]


def test_one_class_alone_has_no_such_radius() -> None:
    images = np.zeros((30, 6), dtype=np.float32)
    assert hints._reach(images, np.zeros(30, dtype=np.int64), "l2") == np.inf


def test_batches_predict_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    network = make_network((5,))
    data = right_data(network)
    monkeypatch.setattr(hints, "NUMBERS", 7 * 40)
    assert np.array_equal(hints._predictor(network)(data.images[:]), data.labels)
