"""The samples that a report shows: the right ones, adversarial inputs that are true, pictures that are faithful."""

from __future__ import annotations

import base64
import io
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image
from rational_evaluation import margins
from small_networks import chain, image_chain, labelled, random_chain

from lipcert.errors import UsageError
from lipcert.network.evaluate import evaluate
from lipcert.network.graph import Network
from lipcert.results import Exhibit, Picture
from lipcert.robustness.attack import Attacker
from lipcert.robustness.data.dataset import Dataset, fit, load_data
from lipcert.robustness.exhibits import COUNT, make_exhibits
from lipcert.robustness.pictures import SHOWN, SIDE, change_picture, features, picture, planes
from lipcert.robustness.settings import Settings
from lipcert.robustness.verdicts import Status, Verdicts

EPS = (0.05, 0.2, 0.6)
BOX = (-4.0, 4.0)


def run(network: Network, images: np.ndarray, labels: np.ndarray, **settings) -> tuple[Verdicts, list[Exhibit]]:
    """Return verdicts by the attack alone, with made-up radii of correctly classified samples, and the exhibits."""
    chosen = Settings(**{"eps": EPS, **settings})
    verdicts = Verdicts.unknown(np.arange(len(labels)), labels, len(chosen.eps))
    logits = evaluate(network, images.astype(np.float64)).reshape(len(labels), -1)
    verdicts.predicted[:] = logits.argmax(axis=1)
    wrong = verdicts.predicted != labels
    verdicts.radius[:] = np.where(wrong, 0.0, np.random.default_rng(1).random(len(labels)))
    attacker = Attacker(network, chosen.attack, chosen.norm, BOX)
    for column, eps in enumerate(chosen.eps):
        hit = attacker.run(images, labels, eps)[0] & ~wrong
        verdicts.status[hit, column:] = Status.ATTACKED
    verdicts.status[wrong] = Status.MISCLASSIFIED
    return verdicts, list(make_exhibits(network, Dataset(images, labels, box=BOX), chosen, verdicts, "cpu"))


@pytest.fixture(scope="module")
def broken() -> tuple[Verdicts, list[Exhibit]]:
    network = random_chain(5)
    return run(network, *labelled(network, 80, seed=2, scale=0.7))


def decoded(shown: Picture) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(shown.png))) as opened:
        assert opened.format == "PNG"
        assert opened.size == (shown.width, shown.height)
        return np.asarray(opened)


def of_kind(exhibits: list[Exhibit], kind: str) -> list[Exhibit]:
    return [exhibit for exhibit in exhibits if exhibit.kind == kind]


def test_the_least_robust_come_first_and_no_other_is_less_robust(broken) -> None:
    verdicts, exhibits = broken
    radii = [exhibit.radius for exhibit in of_kind(exhibits, "least robust")]
    assert radii == sorted(verdicts.radius[verdicts.clean])[:COUNT]
    for exhibit in exhibits:
        assert exhibit.label == exhibit.predicted == verdicts.labels[exhibit.index]
        assert exhibit.radius == verdicts.radius[exhibit.index]


def test_each_sample_is_shown_once(broken) -> None:
    verdicts, exhibits = broken
    assert len({exhibit.index for exhibit in exhibits}) == len(exhibits) == 2 * COUNT
    attacked = of_kind(exhibits, "attacked")
    smallest = [exhibit.adversarial.eps for exhibit in attacked]
    assert smallest == sorted(smallest)
    for exhibit in attacked:
        assert EPS.index(exhibit.adversarial.eps) == (verdicts.status[exhibit.index] == Status.ATTACKED).argmax()


def test_what_was_broken_is_shown_broken_and_nothing_else(broken) -> None:
    verdicts, exhibits = broken
    hit = (verdicts.status == Status.ATTACKED).any(axis=1)
    assert not hit.all()
    for exhibit in exhibits:
        assert (exhibit.adversarial is not None) == hit[exhibit.index]


@pytest.mark.parametrize("norm", ["l2", "linf", "l1"])
def test_adversarial_inputs_are_true_in_rational_arithmetic(norm) -> None:
    network = random_chain(5)
    images, labels = labelled(network, 30, seed=2, scale=0.7)
    _, exhibits = run(network, images, labels, norm=norm, eps=(0.2, 1.0))
    found = [exhibit for exhibit in exhibits if exhibit.adversarial is not None]
    assert found
    for exhibit in found:
        adversarial = exhibit.adversarial
        point = np.empty(6)
        for entry in exhibit.features:
            place = int(entry.name.removeprefix("entry "))
            assert entry.value == images[exhibit.index, place]
            point[place] = entry.changed
        shift = [abs(Fraction(a) - Fraction(float(b))) for a, b in zip(point, images[exhibit.index], strict=True)]
        distance, eps = Fraction(adversarial.distance), Fraction(adversarial.eps)
        match norm:
            case "l2":
                assert sum(s * s for s in shift) <= distance**2
            case "l1":
                assert sum(shift) <= distance
            case "linf":
                assert max(shift) <= distance
        assert distance <= eps
        exact = margins(network, point[None], np.array([exhibit.label]))[0]
        rivals = [exact[c] for c in range(len(exact)) if c != exhibit.label]
        assert min(rivals) <= Fraction(1, 10**6), "a plain float32 pass misclassifies"
        assert exact[adversarial.predicted] == min(rivals)


def test_nothing_is_said_to_be_broken_where_no_attack_ran() -> None:
    network = random_chain(5)
    images, labels = labelled(network, 20, seed=2, scale=0.7)
    _, exhibits = run(network, images, labels, method="global")
    assert len(exhibits) == COUNT
    assert all(exhibit.adversarial is None for exhibit in exhibits)


def test_misclassified_samples_are_not_shown() -> None:
    network = chain((np.eye(2), np.zeros(2)))
    images = np.array([[0.9, 0.1], [0.2, 0.3]], dtype=np.float32)
    _, exhibits = run(network, images, np.array([1, 1]))
    assert [exhibit.index for exhibit in exhibits] == [1]


def test_pictures_of_a_run_show_the_samples() -> None:
    rng = np.random.default_rng(4)
    network = image_chain((3, 4, 5), rng.normal(size=(3, 60)), np.zeros(3))
    images = rng.random((12, 3, 4, 5), dtype=np.float32)
    labels = evaluate(network, images.astype(np.float64)).argmax(axis=1)
    _, exhibits = run(network, images, labels, eps=(2.0,))
    assert any(exhibit.adversarial is not None for exhibit in exhibits)
    low, high = BOX
    for exhibit in exhibits:
        assert exhibit.features == ()
        shown = decoded(exhibit.picture)
        assert shown.shape == (4, 5, 3)
        exact = (np.moveaxis(images[exhibit.index], 0, 2) - low) / (high - low) * 255
        assert np.abs(shown.astype(float) - exact).max() <= 0.5 + 1e-4
        if exhibit.adversarial is not None:
            assert decoded(exhibit.adversarial.picture).shape == (4, 5, 3)
            assert decoded(exhibit.adversarial.change).shape == (4, 5)


SHAPES = {
    (1, 8, 8): (1, 8, 8),
    (3, 5, 6): (3, 5, 6),
    (5, 6, 3): (3, 5, 6),
    (5, 6, 1): (1, 5, 6),
    (784, 1): (1, 28, 28),
    (64,): (1, 8, 8),
    (9, 9): (1, 9, 9),
    (1, 1, 784): (1, 28, 28),
    (65,): None,
    (36,): None,
    (5,): None,
    (1, 2, 40): None,
    (7, 5, 6): None,
    (4, 3, 8, 8): None,
}


@pytest.mark.parametrize(("given", "expected"), SHAPES.items(), ids=str)
def test_what_counts_as_a_picture(given, expected) -> None:
    sample = np.arange(np.prod(given), dtype=np.float64).reshape(given)
    found = planes(sample)
    assert (None if found is None else found.shape) == expected
    if given == (5, 6, 3):
        assert np.array_equal(found[2], sample[..., 2])
    elif found is not None:
        assert np.array_equal(found.ravel(), sample.ravel())


def test_black_and_white_are_the_ends_of_the_box() -> None:
    values = np.array([[[-1.0, 3.0], [1.0, 9.0]]])
    assert decoded(picture(values, (-1.0, 3.0))).tolist() == [[0, 255], [128, 255]]
    assert decoded(picture(np.full((1, 2, 2), 4.0), (4.0, 4.0))).tolist() == [[0, 0], [0, 0]]


def test_no_change_is_grey_and_the_largest_is_black_or_white() -> None:
    shift = np.array([[[0.0, -0.02], [0.01, 0.0]]])
    assert decoded(change_picture(shift)).tolist() == [[128, 0], [191, 128]]
    assert decoded(change_picture(np.zeros((3, 2, 2)))).tolist() == [[128, 128], [128, 128]]


def test_large_pictures_are_reduced_and_stay_small() -> None:
    noise = np.random.default_rng(0).random((3, 224, 100))
    shown = picture(noise, (0.0, 1.0))
    assert (shown.height, max(shown.width, shown.height)) == (SIDE, SIDE)
    assert len(shown.png) < 20_000


def test_features_that_change_most_come_first_with_their_names() -> None:
    sample = np.arange(20.0)
    other = sample.copy()
    other[[3, 17]] += [0.5, -2.0]
    listed = features(sample, other, ("a", "b", "c", "speed"))
    assert [(f.name, f.value, f.changed) for f in listed[:3]] == [
        ("entry 17", 17.0, 15.0), ("speed", 3.0, 3.5), ("a", 0.0, 0.0),
    ]  # fmt: skip
    assert len(listed) == SHOWN
    assert {f.changed for f in features(sample, None, ())} == {None}


def test_names_of_features_come_from_the_file(tmp_path) -> None:
    rng = np.random.default_rng(2)
    images, labels = rng.random((6, 64), dtype=np.float32), np.zeros(6, dtype=np.int64)
    names = np.array([f"sensor {k}\n" for k in range(64)])
    np.savez(tmp_path / "d.npz", images=images, labels=labels, features=names)
    dataset = load_data(tmp_path / "d.npz")
    assert dataset.features == tuple(f"sensor {k}" for k in range(64))
    weight = np.zeros((2, 64))
    weight[0] = 1.0
    network = chain((weight, np.zeros(2)))
    verdicts = Verdicts.unknown(np.arange(6), labels, 1)
    verdicts.predicted[:] = 0
    exhibits = make_exhibits(network, fit(dataset, (64,), 2), Settings(eps=(0.1,)), verdicts, "cpu")
    assert exhibits[0].picture is None, "named entries are no picture, even if they make a square"
    assert exhibits[0].features[0].name == "sensor 0"


@pytest.mark.parametrize("names", [np.array(["a", "b"]), np.arange(3), np.array("abc")])
def test_names_that_do_not_fit_are_refused(tmp_path, names) -> None:
    np.savez(tmp_path / "d.npz", images=np.zeros((2, 3), np.float32), labels=np.zeros(2, int), features=names)
    with pytest.raises(UsageError, match="one name for each of the 3 entries"):
        load_data(tmp_path / "d.npz")


def test_pickled_names_are_refused(tmp_path) -> None:
    names = np.array(["a", "b", "c"], dtype=object)
    np.savez(tmp_path / "d.npz", images=np.zeros((2, 3), np.float32), labels=np.zeros(2, int), features=names)
    with pytest.raises(UsageError, match="pickled"):
        load_data(tmp_path / "d.npz")
