"""Data is read as it is written, or refused in one clear line."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest

from lipcert.errors import UsageError
from lipcert.robustness.data.dataset import Dataset, as_dataset, fit, load_data


def _save(path, **arrays):
    np.savez(path, **arrays)
    return path


def _refused(path, *words, **settings):
    with pytest.raises(UsageError) as caught:
        load_data(path, **settings)
    text = str(caught.value)
    assert "\n" not in text
    for word in (*words, path.name):
        assert word in text
    return text


IMAGES = np.arange(24, dtype=np.uint8).reshape(3, 1, 2, 4)
LABELS = np.array([0, 1, 1])


def test_uint8_is_divided_by_255(tmp_path):
    data = load_data(_save(tmp_path / "d.npz", images=IMAGES, labels=LABELS))
    np.testing.assert_array_equal(data.images, (IMAGES / 255.0).astype(np.float32))
    assert data.images.dtype == np.float32 and data.labels.dtype == np.int64
    assert data.box == (0.0, 1.0)
    assert len(data.sha256) == 64 and len(data) == 3


def test_a_scale_of_ones_own(tmp_path):
    data = load_data(_save(tmp_path / "d.npz", images=IMAGES, labels=LABELS), scale=0.5)
    np.testing.assert_array_equal(data.images, (IMAGES * 0.5).astype(np.float32))
    assert data.box == (0.0, 127.5)


def test_floats_are_taken_as_they_are(tmp_path):
    images = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    data = load_data(_save(tmp_path / "d.npz", images=images, labels=LABELS))
    np.testing.assert_array_equal(data.images, images)
    assert data.box == (float(images.min()), float(images.max()))
    assert data.notes == ()


def test_float64_is_rounded_and_that_is_said(tmp_path):
    images = np.full((3, 2), 0.1)
    data = load_data(_save(tmp_path / "d.npz", images=images, labels=LABELS))
    assert "rounded to float32" in data.notes[0]
    exact = load_data(_save(tmp_path / "e.npz", images=np.full((3, 2), 0.5), labels=LABELS))
    assert exact.notes == () and exact.box == (0.0, 1.0)


def test_limit(tmp_path):
    path = _save(tmp_path / "d.npz", images=IMAGES, labels=LABELS)
    assert len(load_data(path, limit=2)) == 2
    assert len(load_data(path, limit=99)) == 3
    with pytest.raises(UsageError, match="limit"):
        load_data(path, limit=0)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64, np.float32, np.float64])
def test_labels_of_any_whole_number_type(tmp_path, dtype):
    data = load_data(_save(tmp_path / "d.npz", images=IMAGES, labels=LABELS.astype(dtype).reshape(3, 1)))
    np.testing.assert_array_equal(data.labels, LABELS)


WRONG = {
    "no labels": ({"images": IMAGES}, ["no array 'labels'", "it holds images"]),
    "no images": ({"labels": LABELS}, ["no array 'images'"]),
    "nothing": ({}, ["holds nothing"]),
    "empty": ({"images": IMAGES[:0], "labels": LABELS[:0]}, ["no samples"]),
    "scalar": ({"images": np.array(1.0), "labels": LABELS}, ["no samples"]),
    "mismatch": ({"images": IMAGES, "labels": LABELS[:2]}, ["3 images and 2 labels"]),
    "nan": ({"images": np.array([[0.0], [1.0], [np.nan]]), "labels": LABELS}, ["image 2", "NaN"]),
    "inf": ({"images": np.array([[0.0], [np.inf], [1.0]]), "labels": LABELS}, ["image 1"]),
    "too large for float32": ({"images": np.array([[0.0], [1e39], [1.0]]), "labels": LABELS}, ["image 1"]),
    "negative label": ({"images": IMAGES, "labels": np.array([0, -1, 1])}, ["label -1", "out of range"]),
    "half label": ({"images": IMAGES, "labels": np.array([0, 0.5, 1])}, ["not whole numbers"]),
    "nan label": ({"images": IMAGES, "labels": np.array([0, np.nan, 1])}, ["not whole numbers"]),
    "one-hot": ({"images": IMAGES, "labels": np.eye(3)}, ["shape (3, 3)"]),
    "words": ({"images": np.array([["a"], ["b"], ["c"]]), "labels": LABELS}, ["numbers are needed"]),
    "complex": ({"images": np.ones((3, 1), complex), "labels": LABELS}, ["numbers are needed"]),
}


@pytest.mark.parametrize("case", sorted(WRONG))
def test_wrong_arrays(tmp_path, case):
    arrays, words = WRONG[case]
    _refused(_save(tmp_path / "d.npz", **arrays), *words)


def test_files_that_are_no_archives(tmp_path):
    _refused(tmp_path / "missing.npz", "No such file")
    (tmp_path / "text.npz").write_text("hello")
    _refused(tmp_path / "text.npz", "not an .npz archive")
    (tmp_path / "empty.npz").write_bytes(b"")
    _refused(tmp_path / "empty.npz", "cannot read")
    np.save(tmp_path / "single.npy", IMAGES)
    _refused(tmp_path / "single.npy", "single array")
    _refused(tmp_path, "cannot read")


def test_truncated_archives(tmp_path):
    whole = io.BytesIO()
    np.savez(whole, images=IMAGES, labels=LABELS)
    for keep in (1, 10, 200, len(whole.getvalue()) - 30, len(whole.getvalue()) - 1):
        path = tmp_path / f"cut{keep}.npz"
        path.write_bytes(whole.getvalue()[:keep])
        _refused(path, "cannot read")


class _Bomb:
    def __reduce__(self):
        return pytest.fail, ("a pickle was executed",)


def test_pickles_are_not_executed(tmp_path):
    (tmp_path / "bomb.npz").write_bytes(pickle.dumps(_Bomb()))
    _refused(tmp_path / "bomb.npz", "not an .npz archive")
    objects = np.empty(3, dtype=object)
    objects[:] = [_Bomb(), _Bomb(), _Bomb()]
    _refused(_save(tmp_path / "objects.npz", images=IMAGES, labels=objects), "pickled objects")


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_impossible_scales(tmp_path, scale):
    path = _save(tmp_path / "d.npz", images=IMAGES, labels=LABELS)
    with pytest.raises(UsageError, match="scale"):
        load_data(path, scale=scale)


def _dataset(*shape):
    count = int(np.prod(shape))
    return Dataset(np.arange(2 * count, dtype=np.float32).reshape(2, *shape), np.array([0, 1]))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ((1, 4, 5), (1, 4, 5)),
        ((1, 4, 5), (4, 5)),
        ((1, 4, 5), (4, 5, 1)),
        ((20,), (20, 1)),
        ((20,), (1, 4, 5)),
        ((1, 4, 5), (20,)),
        ((3, 4, 5), (60,)),
        ((60,), (3, 4, 5)),
        ((1, 4, 5), (20, 1)),
        ((3, 3, 3), (3, 3, 3)),
    ],
)
def test_entries_keep_their_order(given, wanted):
    data = fit(_dataset(*given), wanted, 2)
    assert data.images.shape == (2, *wanted)
    np.testing.assert_array_equal(data.images.ravel(), _dataset(*given).images.ravel())


def test_colours_change_places_where_it_is_clear():
    first = _dataset(3, 4, 5)
    data = fit(first, (4, 5, 3), 2)
    np.testing.assert_array_equal(data.images, first.images.transpose(0, 2, 3, 1))
    assert "channels last" in data.notes[-1]
    last = _dataset(4, 5, 3)
    np.testing.assert_array_equal(fit(last, (3, 4, 5), 2).images, last.images.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ((1, 4, 5), (1, 5, 4)),
        ((5, 4, 3), (60,)),
        ((3, 4, 5), (3, 5, 4)),
        ((3, 4, 5), (5, 4, 3)),
        ((1, 4, 5), (2, 2, 5)),
        ((2, 4, 5), (4, 5, 2)),
        ((1, 4, 5), (1, 28, 28)),
        ((19,), (20,)),
    ],
)
def test_orders_are_not_guessed(given, wanted):
    with pytest.raises(UsageError, match="do not fit"):
        fit(_dataset(*given), wanted, 2)


def test_labels_beyond_the_outputs():
    with pytest.raises(UsageError, match=r"label 1 of sample 1.*1 outputs, 0 to 0"):
        fit(_dataset(4), (4,), 1)


def test_every_form_of_data(tmp_path):
    path = _save(tmp_path / "d.npz", images=IMAGES, labels=LABELS)
    one, two, three = as_dataset(path), as_dataset(str(path)), as_dataset((IMAGES, LABELS.tolist()))
    for data in (two, three, as_dataset(one)):
        np.testing.assert_array_equal(data.images, one.images)
        np.testing.assert_array_equal(data.labels, one.labels)
    assert len(as_dataset(one, limit=2)) == 2
    with pytest.raises(UsageError, match="no scale"):
        as_dataset(one, scale=0.5)
    with pytest.raises(UsageError, match="pair"):
        as_dataset(7)
