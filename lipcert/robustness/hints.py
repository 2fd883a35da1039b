"""Hints: what may be wrong with data or settings, noticed on a few samples before the work begins.

A hint never changes a verdict. It is said only where numbers speak for it: the network is asked again about the same
samples, scaled, normalised or turned in the ways that are typically forgotten, and where half of the errors vanish,
that way is named. Accuracies are those of plain float32 passes: level estimate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from lipcert.bounds.torch_network import compile_network
from lipcert.bounds.torch_precision import full_precision
from lipcert.network.graph import Network
from lipcert.proof.claims import Norm
from lipcert.robustness.data.dataset import COLOURS, Dataset, Labels
from lipcert.robustness.data.streams import Images, Shape

MOST, FEWEST = 256, 20  # samples that are looked at; fewer than the second say nothing
PAIRED = 64  # samples whose distances to each other are looked at
NUMBERS = 2**21  # in the largest layer of a batch
PIXELS = np.float32(255.0)
LARGE = 1.5  # inputs beyond this are not in 0 to 1, whatever rounding did
Predict = Callable[[Images], Labels]
Turn = Callable[[Images], Images]


def hinted(
    network: Network, dataset: Dataset, eps: Sequence[float], norm: Norm, say: Callable[[str], None] | None
) -> Dataset:
    """Return the data with all hints among its notes, and say each of them at once.

    Args:
        network: as read.
        dataset: in the network's input shape.
        eps: radii, in raw input units. norm: of the ball.
        say: called with each hint, one line.
    """
    if len(dataset) < FEWEST:
        return dataset
    images, labels = _probe(network, dataset)
    reach = _reach(images[:PAIRED], labels[:PAIRED], norm)
    found = [*_radius_hints(reach, dataset.box, eps, norm), *_accuracy_hints(network, images, labels)]
    if say is not None:
        for hint in found:
            say(hint)
    return replace(dataset, notes=(*dataset.notes, *found))


def _probe(network: Network, dataset: Dataset) -> tuple[Images, Labels]:
    """Return some samples from all over the data, which may be sorted by class."""
    largest = max(node.size for node in network.nodes)
    count = min(len(dataset), MOST, max(FEWEST, 8 * NUMBERS // largest))
    rows = np.linspace(0, len(dataset) - 1, count).round().astype(np.int64)
    return np.asarray(dataset.images[rows]), dataset.labels[rows]


def _accuracy_hints(network: Network, images: Images, labels: Labels) -> list[str]:
    """Compare the accuracy of the samples as they are with that of the samples changed in typical ways."""
    predict = _predictor(network)
    predicted = predict(images)
    share = _share(predicted, labels)
    chance = 1.0 / network.nodes[-1].size
    if share >= (1.0 + chance) / 2.0:
        return _unit_hints(predict, images, labels, share)
    for shift in (1, -1):
        if _share(predicted, labels + shift) >= max(0.5, 2.0 * share):
            return [
                f"the labels look shifted by one: {_percent(_share(predicted, labels + shift))} of the predictions are "
                f"the label {'+' if shift > 0 else '-'} 1, {_percent(share)} the label itself; labels count from 0"
            ]
    tried = [(_share(predict(changed), labels), what, remedy) for changed, what, remedy in _changes(images)]
    better, what, remedy = max(tried, key=lambda attempt: attempt[0])
    if better >= (1.0 + share) / 2.0:
        return [f"clean accuracy is {_percent(share)}, but {_percent(better)} {what}: {remedy}"]
    if share > chance + 2.0 * math.sqrt(chance * (1.0 - chance) / len(labels)):
        return []
    classes, counts = np.unique(predicted, return_counts=True)
    return [
        f"clean accuracy is {_percent(share)}, no better than guessing, and class {classes[counts.argmax()]} is "
        f"predicted for {_percent(counts.max() / len(labels))}: is this the data of the network, with its --mean, "
        f"--std and --scale (inputs run from {images.min():.3g} to {images.max():.3g}), and do the labels count "
        "the classes as the network does?"
    ]


def _unit_hints(predict: Predict, images: Images, labels: Labels, share: float) -> list[str]:
    """Notice pixels of 0 to 255 that the network takes as well as those of 0 to 1: then eps is in other units."""
    low, high = float(images.min()), float(images.max())
    if not (low >= 0.0 and PIXELS / 2.0 < high <= PIXELS) or share > _share(predict(images / PIXELS), labels):
        return []
    return [
        f"inputs run from {low:.3g} to {high:.3g} and eps is in these units; divided by 255 they are classified as "
        "well: if the network was trained on inputs of 0 to 1, try --scale 1/255"
    ]


def _changes(images: Images) -> Iterator[tuple[Images, str, str]]:
    """Yield the images changed in typical ways, each with what was done and what to do."""
    if images.max() > LARGE:
        yield images / PIXELS, "with inputs divided by 255", "try --scale 1/255"
    else:
        remedy = "the network takes 0 to 255; try --scale 1 (uint8 data) or --scale 255 (data of 0 to 1)"
        yield images * PIXELS, "with inputs times 255", remedy
    mean, std = _statistics(images)
    shown = f"--mean {_listed(mean)} --std {_listed(std)}"
    remedy = (
        f"is a normalisation missing? Give the --mean and --std of the training; those of these samples are {shown}"
    )
    yield (images - mean) / std, "with inputs normalised by their own mean and deviation", remedy
    remedy = "is a normalisation missing? Try --mean 0.5 --std 0.5"
    yield (images - np.float32(0.5)) / np.float32(0.5), "with inputs of -1 to 1", remedy
    for turn, what, remedy in _turns(images.shape[1:]):
        yield np.ascontiguousarray(turn(images)), what, remedy


def _turns(shape: Shape) -> Iterator[tuple[Turn, str, str]]:
    """Yield the other orders in which the entries of an image may be stored."""
    first, last = _stored(shape)
    if first is not None and last is not None:
        flat, whole = (-1, *last), (-1, *first)
        yield (
            lambda x: x.reshape(flat).transpose(0, 3, 1, 2).reshape(x.shape),
            "with entries read as channels last (HWC)",
            "the data look like HWC: transpose the images to (N, C, H, W)",
        )
        yield (
            lambda x: x.reshape(whole).transpose(0, 2, 3, 1).reshape(x.shape),
            "with entries turned to channels last (HWC)",
            "the network takes HWC: transpose the images to (N, H, W, C)",
        )
        if first[0] == 3:
            remedy = "are the colours stored as BGR? The network takes RGB"
            yield (lambda x: x.reshape(whole)[:, ::-1].reshape(x.shape)), "with the colours in reverse", remedy
    planes = first if first is not None else _square(math.prod(shape))
    if planes is not None and planes[-1] == planes[-2]:
        remedy = "are the images stored on their side? Transpose them"
        yield (
            lambda x: x.reshape(-1, *planes).swapaxes(-1, -2).reshape(x.shape),
            "with rows and columns exchanged",
            remedy,
        )


def _stored(shape: Shape) -> tuple[Shape | None, Shape | None]:
    """Return the shapes of colour images in both orders, where the input can be one."""
    if len(shape) == 3 and shape[0] in COLOURS:
        return shape, (*shape[1:], shape[0])
    if len(shape) == 3 and shape[2] in COLOURS:
        return (shape[2], *shape[:2]), shape
    side = _square(math.prod(shape) // 3) if len(shape) == 1 and shape[0] % 3 == 0 else None
    return (None, None) if side is None else ((3, *side), (*side, 3))


def _square(size: int) -> Shape | None:
    side = math.isqrt(size)
    return (side, side) if side * side == size else None


def _statistics(images: Images) -> tuple[Images, Images]:
    """Return mean and standard deviation, of each channel where the first axis holds colours."""
    axes = (0, 2, 3) if images.ndim == 4 and images.shape[1] in COLOURS else tuple(range(images.ndim))
    mean = images.mean(axis=axes, keepdims=True, dtype=np.float64)
    std = np.maximum(images.std(axis=axes, keepdims=True, dtype=np.float64), 1e-6)
    return mean.astype(np.float32), std.astype(np.float32)


def _radius_hints(reach: float, box: tuple[float, float], eps: Sequence[float], norm: Norm) -> list[str]:
    """Notice radii that reach a sample of another class from every sample: nothing can be certified there."""
    found = []
    for radius in eps:
        if radius < reach:
            continue
        low, high = box
        pixels = high - low <= LARGE and radius >= 1.0 and radius / PIXELS < reach
        advice = f"did you mean {radius:g}/255 = {radius / PIXELS:.4g}?" if pixels else "is it in raw input units?"
        found.append(
            f"eps {radius:g} is too large for inputs of {low:.3g} to {high:.3g}: every sample looked at has one of "
            f"another class within {reach:.3g} in {norm}, so nothing can be certified; {advice}"
        )
    return found


def _reach(images: Images, labels: Labels, norm: Norm) -> float:
    """Return the largest distance of a sample to the nearest one of another class; infinity where there is none."""
    flat = torch.from_numpy(images.reshape(len(images), -1).astype(np.float64))
    distance = torch.cdist(flat, flat, p={"l1": 1.0, "l2": 2.0, "linf": math.inf}[norm]).numpy()
    distance[labels[:, None] == labels[None, :]] = np.inf
    return float(distance.min(axis=1).max())


def _predictor(network: Network) -> Predict:
    run = compile_network(network, "cpu", torch.float32)
    size = max(1, NUMBERS // max(node.size for node in network.nodes))

    def predict(images: Images) -> Labels:
        inputs = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))
        with torch.no_grad(), full_precision():
            found = [run(batch).flatten(1).argmax(dim=1) for batch in torch.split(inputs, size)]
        return torch.cat(found).numpy()

    return predict


def _share(predicted: Labels, labels: npt.NDArray[np.int64]) -> float:
    return float(np.mean(predicted == labels))


def _percent(share: float) -> str:
    return f"{100.0 * share:.3g} %"


def _listed(values: Images) -> str:
    return ",".join(f"{value:.4g}" for value in values.ravel())
