"""Data that is not held in memory: mapped files, folders of images, data sets that give one sample at a time."""

from __future__ import annotations

import hashlib
import io
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from small_networks import image_chain

from lipcert.errors import UsageError
from lipcert.robustness.certifier import certify
from lipcert.robustness.data.dataset import Dataset, as_dataset, fit, load_data
from lipcert.robustness.data.streams import Stream

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, size=(7, 3, 4, 5), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2, 0])
SAVERS = {"stored": np.savez, "compressed": np.savez_compressed}


@pytest.mark.parametrize("save", SAVERS.values(), ids=SAVERS)
@pytest.mark.parametrize(
    "images",
    [
        PIXELS,
        np.asfortranarray(PIXELS),
        PIXELS.astype(np.float32) / 255,
        PIXELS.astype(">f8") / 3,
        PIXELS.astype(np.int16),
        PIXELS[::2],
    ],
    ids=["uint8", "fortran", "float32", "big-endian", "int16", "strided"],
)
def test_a_file_reads_as_the_arrays_in_it(tmp_path, save, images):
    save(tmp_path / "d.npz", images=images, labels=LABELS[: len(images)])
    mapped, held = load_data(tmp_path / "d.npz"), as_dataset((images, LABELS[: len(images)]))
    assert isinstance(mapped.images, Stream)
    wanted = np.asarray(held.images)
    np.testing.assert_array_equal(np.asarray(mapped.images), wanted)
    assert (
        mapped.digest
        == held.digest
        == hashlib.sha256(wanted.astype("<f4").tobytes() + held.labels.astype("<i8").tobytes()).hexdigest()
    )
    assert (mapped.box, mapped.notes) == (
        held.box,
        tuple(n.replace("arrays", str(tmp_path / "d.npz")) for n in held.notes),
    )
    assert mapped.sha256 == hashlib.sha256((tmp_path / "d.npz").read_bytes()).hexdigest()


@pytest.mark.parametrize("save", SAVERS.values(), ids=SAVERS)
def test_a_stream_is_indexed_like_an_array(tmp_path, save):
    save(tmp_path / "d.npz", images=PIXELS, labels=LABELS)
    images, whole = load_data(tmp_path / "d.npz").images, (PIXELS / 255).astype(np.float32)
    mask = LABELS == 0
    for rows in (
        slice(None),
        slice(2, 5),
        slice(-2, None),
        slice(None, None, 3),
        np.array([5, 0, 5]),
        mask,
        3,
        -1,
        [1, 2],
    ):
        np.testing.assert_array_equal(images[rows], whole[rows])
        assert images[rows].dtype == np.float32
    with pytest.raises(IndexError):
        images[7]
    assert len(images) == 7 and images.shape == (7, 3, 4, 5)
    first = load_data(tmp_path / "d.npz", limit=2).images
    np.testing.assert_array_equal(first[:], whole[:2])
    np.testing.assert_array_equal(as_dataset(load_data(tmp_path / "d.npz"), limit=3).images[:], whole[:3])


def test_a_stream_takes_the_networks_shape_block_by_block(tmp_path):
    np.savez(tmp_path / "d.npz", images=PIXELS, labels=LABELS)
    data, whole = load_data(tmp_path / "d.npz"), (PIXELS / 255).astype(np.float32)
    last = fit(data, (4, 5, 3), 3)
    np.testing.assert_array_equal(last.images[np.array([4, 1])], whole[[4, 1]].transpose(0, 2, 3, 1))
    assert last.images.shape == (7, 4, 5, 3)
    flat = fit(data, (60,), 3)
    np.testing.assert_array_equal(flat.images[1:3], whole[1:3].reshape(2, 60))
    held = fit(Dataset(whole, LABELS), (4, 5, 3), 3)
    assert last.digest == held.digest


@pytest.mark.parametrize("save", SAVERS.values(), ids=SAVERS)
def test_memory_does_not_grow_with_the_file(tmp_path, save):
    """20,000 images are 62 MB as float32: opening takes buffers of a few MB, running through them
    two blocks of 8."""
    images = np.broadcast_to(PIXELS[:1, :, :, :, None], (1, 3, 4, 5, 13)).reshape(1, 780).repeat(20_000, axis=0)
    save(tmp_path / "d.npz", images=images, labels=np.zeros(20_000, dtype=np.int64))
    whole = images.size * 4
    del images
    tracemalloc.start()
    try:
        data = load_data(tmp_path / "d.npz")
        assert tracemalloc.get_traced_memory()[1] < 0.1 * whole
        assert len(data.digest) == 64
        assert tracemalloc.get_traced_memory()[1] < 0.5 * whole
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("save", SAVERS.values(), ids=SAVERS)
def test_a_changed_byte_is_noticed(tmp_path, save):
    path = tmp_path / "d.npz"
    save(path, images=PIXELS, labels=LABELS)
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("images.npy")
    content = bytearray(path.read_bytes())
    content[member.header_offset + 60 + member.compress_size // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UsageError, match="damaged"):
        load_data(path)


def test_members_that_are_no_arrays(tmp_path):
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("images", b"hello")
        archive.writestr("labels.npy", b"hello")
    with pytest.raises(UsageError, match="damaged"):
        load_data(tmp_path / "d.npz")


# --- folders


def _folder(root, classes, mode="RGB", size=(5, 4), suffix=".png"):
    """Write images whose pixels are known; return them in the order of a folder's samples."""
    rng, written = np.random.default_rng(1), {}
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, size=(size[1], size[0], *((3,) if mode == "RGB" else ())), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:03}{suffix}")
            written[name, number] = pixels.reshape(size[1], size[0], -1).transpose(2, 0, 1)
    order = sorted(written, key=lambda key: (key[1], sorted(classes).index(key[0])))
    return np.stack([written[key] for key in order]), [sorted(classes).index(key[0]) for key in order]


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_folder_of_images(tmp_path, mode):
    pixels, labels = _folder(tmp_path / "data", {"cat": 2, "ant": 3, "10": 1}, mode)
    (tmp_path / "data" / "ant" / "notes.txt").write_text("no image")
    (tmp_path / "data" / "readme.md").write_text("beside the classes")
    data = load_data(tmp_path / "data")
    np.testing.assert_array_equal(data.images[:], (pixels / 255).astype(np.float32))
    np.testing.assert_array_equal(data.labels, labels)
    assert labels[:3] == [0, 1, 2]  # the first ones show all classes
    assert "0 = 10, 1 = ant, 2 = cat" in data.notes[0] and "1 files" in data.notes[1]
    assert data.box == (0.0, 1.0) and data.sha256 is None
    np.testing.assert_array_equal(load_data(tmp_path / "data", limit=4).labels, labels[:4])
    np.testing.assert_array_equal(load_data(tmp_path / "data", scale=1.0).images[3], pixels[3].astype(np.float32))


def test_jpeg_is_what_pillow_decodes(tmp_path):
    _folder(tmp_path / "data", {"a": 1}, suffix=".jpeg")
    with Image.open(tmp_path / "data" / "a" / "000.jpeg") as image:
        decoded = np.asarray(image).transpose(2, 0, 1)
    np.testing.assert_array_equal(load_data(tmp_path / "data").images[0], (decoded / 255).astype(np.float32))


def _spoil(root, how):
    path = root / "b" / "001.png"
    match how:
        case "size":
            Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(path)
        case "mode":
            Image.fromarray(np.zeros((4, 5), np.uint8)).save(path)
        case "alpha":
            for old in root.rglob("*.png"):
                Image.fromarray(np.zeros((4, 5, 4), np.uint8)).save(old)
        case "damage":
            path.write_bytes(b"no picture")
        case "empty class":
            (root / "c").mkdir()
        case "no class":
            for old in root.rglob("*.png"):
                old.unlink()
            for old in list(root.iterdir()):
                old.rmdir()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("size", "9 x 9 RGB, the first one .* 5 x 4 RGB"),
        ("mode", "5 x 4 L, the first one"),
        ("alpha", "mode RGBA"),
        ("damage", "cannot read the image"),
        ("empty class", "has no images"),
        ("no class", "no sub-folders"),
    ],
)
def test_folders_that_are_refused(tmp_path, how, words):
    _folder(tmp_path / "data", {"a": 2, "b": 2})
    _spoil(tmp_path / "data", how)
    with pytest.raises(UsageError, match=words) as caught:
        load_data(tmp_path / "data")
    assert "\n" not in str(caught.value)


def test_an_image_that_is_cut_off_is_noticed_when_it_is_read(tmp_path):
    _folder(tmp_path / "data", {"a": 2}, size=(50, 40))
    path = tmp_path / "data" / "a" / "001.png"
    path.write_bytes(path.read_bytes()[:2000])
    data = load_data(tmp_path / "data")
    assert data.images[:1].shape == (1, 3, 40, 50)
    with pytest.raises(UsageError, match=r"001\.png"):
        data.images[:]


# --- data sets


class Pairs:
    """As torch's data sets are."""

    def __init__(self, make, count=7):
        self._make, self._count, self.asked = make, count, 0

    def __len__(self):
        return self._count

    def __getitem__(self, row):
        self.asked += 1
        return self._make(row)


def _picture(row):
    return Image.fromarray(PIXELS[row].transpose(1, 2, 0))


FORMS = {
    "arrays": lambda row: (PIXELS[row], int(LABELS[row])),
    "tensors": lambda row: (torch.from_numpy(PIXELS[row]), torch.tensor(LABELS[row])),
    "float tensors": lambda row: (torch.from_numpy(PIXELS[row]).double() / 255, int(LABELS[row])),
    "pictures": lambda row: (_picture(row), int(LABELS[row])),
    "mappings": lambda row: {"img": _picture(row), "label": int(LABELS[row]), "id": 7},
}


@pytest.mark.parametrize("form", FORMS)
def test_data_sets_that_give_one_sample_at_a_time(form):
    data = as_dataset(Pairs(FORMS[form]))
    np.testing.assert_array_equal(data.images[:], (PIXELS / 255).astype(np.float32))
    np.testing.assert_array_equal(data.images[np.array([6, 1])], (PIXELS[[6, 1]] / 255).astype(np.float32))
    np.testing.assert_array_equal(data.labels, LABELS)
    assert data.name == "Pairs" and data.box == (0.0, 1.0)


def test_torch_data_sets_and_lists_of_pairs():
    tensors = torch.utils.data.TensorDataset(torch.from_numpy(PIXELS), torch.from_numpy(LABELS))
    for data in (tensors, [FORMS["arrays"](row) for row in range(7)]):
        np.testing.assert_array_equal(as_dataset(data).images[:], (PIXELS / 255).astype(np.float32))


def test_a_limit_asks_for_no_more_samples():
    pairs = Pairs(FORMS["arrays"], 7)
    assert len(as_dataset(pairs, limit=2)) == 2
    assert pairs.asked <= 2 + 1 + 4
    seen = []
    as_dataset(Pairs(lambda row: (seen.append(row), FORMS["arrays"](row))[1]), limit=3)
    assert max(seen) == 2


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda row: PIXELS[row], "item 0"),
        (lambda row: {"pixels": PIXELS[row], "label": 0}, "keys pixels, label"),
        (lambda row: (PIXELS[row], "cat"), "labels"),
        (lambda row: (PIXELS[row][: 2 + row % 2], 0), "image 0|image 1"),
        (lambda row: (PIXELS[row].astype([np.uint8, np.int16][row % 2]), 0), "image 1"),
        (lambda row: ("text", 0), "numbers are needed"),
        (lambda row: (RNG.random(3), 0), "another one each time"),
        (lambda row: (np.full(3, np.nan), 0), "NaN"),
    ],
)
def test_data_sets_that_are_refused(make, words):
    with pytest.raises(UsageError, match=words) as caught:
        as_dataset(Pairs(make))
    assert "\n" not in str(caught.value)


def test_every_source_gives_the_same_report(tmp_path):
    weight = np.random.default_rng(2).normal(size=(3, 60))
    network = image_chain((3, 4, 5), weight, np.zeros(3))
    np.savez_compressed(tmp_path / "d.npz", images=PIXELS, labels=LABELS)
    for row, label in enumerate(LABELS):
        place = tmp_path / "data" / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[row].transpose(1, 2, 0)).save(place / f"{row}.png")
    sources = [(PIXELS, LABELS), tmp_path / "d.npz", tmp_path / "data", Pairs(FORMS["pictures"])]
    reports = [certify(network, data, eps=(0.01, 0.1), method="global", device="cpu") for data in sources]
    for report in reports[1:]:
        assert report.certified_count == reports[0].certified_count
        assert report.mean_certified_radius == pytest.approx(reports[0].mean_certified_radius, rel=1e-12)
    digests = {report.provenance.samples_sha256 for report in reports}
    assert len(digests) == 1  # LABELS go round the classes, as a folder does


def test_an_archive_in_memory_is_not_confused_with_one_on_disk():
    with pytest.raises(UsageError, match="the data is"):
        as_dataset(io.BytesIO(b""))
