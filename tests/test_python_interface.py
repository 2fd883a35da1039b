"""Python as a first-class door: live modules, loaders as they are, and results that show themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sample_documents import make_check, make_comparison, make_report
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lipcert
from lipcert.errors import UnsupportedError, UsageError
from lipcert.report import notebook, numbers
from lipcert.results import BoundResult

SAMPLES = 40


def make_module() -> nn.Module:
    torch.manual_seed(4)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 4 * 4, 3)).eval()


@pytest.fixture(scope="module")
def module() -> nn.Module:
    return make_module()


@pytest.fixture(scope="module")
def samples(module: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Images with the module's own predictions as labels, but for every fifth."""
    images = torch.rand(SAMPLES, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        labels = module(images).argmax(dim=1)
    labels[::5] = (labels[::5] + 1) % 3
    return images, labels


def quick(model: Any, data: Any, **settings: Any) -> Any:
    return lipcert.certify(model, data, eps=0.01, method="global", lower_seconds=0.0, **settings)


# --- models and data as they are --------------------------------------------------------------------------------


def test_importing_is_light(tmp_path: Path) -> None:
    code = (
        "import sys, lipcert\n"
        "heavy = {'torch', 'pandas', 'matplotlib', 'numpy', 'onnx', 'cvxpy', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(' '.join(heavy) if heavy else 0)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_the_package_says_that_it_is_typed() -> None:
    assert files("lipcert").joinpath("py.typed").is_file()


def test_a_live_module_is_bounded_like_a_network(module: nn.Module) -> None:
    live = lipcert.bound(module, input_shape=(1, 6, 6), method="product", lower_seconds=0.0)
    read = lipcert.bound(lipcert.load(module, input_shape=(1, 6, 6)), method="product", lower_seconds=0.0)
    assert live.value == read.value > 0
    assert live.certificate.weights_digest == read.certificate.weights_digest


def test_a_live_module_is_compared_and_checked(module: nn.Module, tmp_path: Path) -> None:
    found = lipcert.compare(module, input_shape=(1, 6, 6), methods=["product"])
    bound = lipcert.bound(module, input_shape=(1, 6, 6), method="product", lower_seconds=0.0)
    assert found.rows[0].bound == bound.value
    bound.certificate.save(tmp_path / "m.lipcert")
    assert lipcert.check(tmp_path / "m.lipcert", module, input_shape=(1, 6, 6)).valid


@pytest.mark.parametrize("batch", [1, 7, SAMPLES])
def test_a_loader_gives_what_arrays_give(module: nn.Module, samples: Any, batch: int) -> None:
    images, labels = samples
    expected = quick(lipcert.load(module, input_shape=(1, 6, 6)), (images.numpy(), labels.numpy()))
    assert expected.clean_count == SAMPLES - SAMPLES // 5
    found = quick(module, DataLoader(TensorDataset(images, labels), batch_size=batch))
    assert found.provenance.samples_sha256 == expected.provenance.samples_sha256
    assert (found.samples, found.certified_count) == (SAMPLES, expected.certified_count)
    assert any("DataLoader" in note for note in found.notes)


def test_a_dataset_needs_no_loop(module: nn.Module, samples: Any) -> None:
    expected = quick(module, DataLoader(TensorDataset(*samples)))
    found = quick(module, TensorDataset(*samples))
    assert found.provenance.samples_sha256 == expected.provenance.samples_sha256
    assert found.certified_count == expected.certified_count


def test_what_a_loader_does_to_the_order_is_said(module: nn.Module, samples: Any) -> None:
    loader = DataLoader(TensorDataset(*samples), batch_size=16, shuffle=True, drop_last=True)
    found = quick(module, loader, limit=20)
    assert found.samples == 20
    assert any("shuffles" in note for note in found.notes)
    assert any("incomplete last batch" in note for note in found.notes)


def test_no_more_batches_are_drawn_than_needed(module: nn.Module, samples: Any) -> None:
    drawn = []

    class Counting(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return SAMPLES

        def __getitem__(self, index: int) -> Any:
            drawn.append(index)
            return samples[0][index], samples[1][index]

    assert quick(module, DataLoader(Counting(), batch_size=4), limit=6).samples == 6
    assert drawn == list(range(8))


@pytest.mark.parametrize(
    ("batches", "words"),
    [([], "empty"), ([torch.zeros(4, 36)], "pairs"), ([None], "pairs")],
)
def test_a_loader_of_something_else_is_refused(module: nn.Module, batches: list[Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        quick(module, DataLoader(batches, batch_size=None))


def test_what_goes_wrong_inside_a_loader_is_told_in_one_line(module: nn.Module) -> None:
    class Broken(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Any:
            raise RuntimeError("the disk\nis gone")

    with pytest.raises(UsageError, match=r"RuntimeError: the disk is gone.*ToTensor"):
        quick(module, DataLoader(Broken()))


def test_a_module_in_training_mode_is_refused(samples: Any) -> None:
    module = make_module().train()
    for call in (
        lambda: lipcert.bound(module, input_shape=(1, 6, 6)),
        lambda: quick(module, DataLoader(TensorDataset(*samples))),
    ):
        with pytest.raises(UsageError, match=r"model\.eval\(\)"):
            call()


@pytest.mark.parametrize("axes", ["missing", "last"])
def test_the_axis_of_channels_is_found(module: nn.Module, samples: Any, axes: str) -> None:
    images, labels = samples[0].numpy(), samples[1].numpy()
    stored = images[:, 0] if axes == "missing" else images.transpose(0, 2, 3, 1)
    found, expected = quick(module, (stored, labels)), quick(module, (images, labels))
    assert found.provenance.samples_sha256 == expected.provenance.samples_sha256
    assert found.certified_count == expected.certified_count


def test_a_module_that_takes_no_such_images_says_so(module: nn.Module, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=r"\(1, 7, 7\).*input_shape"):
        quick(module, (np.zeros((30, 1, 7, 7), dtype=np.float32), np.zeros(30, dtype=np.int64)))
    with pytest.raises(UnsupportedError):
        lipcert.bound(module, input_shape=(1, 7, 7))
    assert capfd.readouterr() == ("", "")


def test_a_module_without_a_shape_is_told_what_to_give(module: nn.Module) -> None:
    with pytest.raises(UsageError, match="input_shape"):
        lipcert.bound(module)


def test_paths_are_models_too(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no file 'nothing\.onnx'"):
        lipcert.bound("nothing.onnx")


# --- results that show themselves -------------------------------------------------------------------------------


class Tags(HTMLParser):
    """Counts the tags of a piece of HTML and makes sure that they are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: dict[str, int] = {}

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        self.seen[tag] = self.seen.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


RESULTS = {
    "report": lambda: make_report(200, threshold=0.5),
    "comparison": make_comparison,
    "check": make_check,
    "bound": lambda: next(row for row in make_comparison().rows if row.bound is not None),
}


@pytest.mark.parametrize("name", RESULTS)
def test_results_print_well(name: str) -> None:
    result = RESULTS[name]()
    assert "\n" not in repr(result)
    assert len(repr(result)) < 250
    assert all(len(line) < 160 for line in str(result).splitlines())
    assert len(str(result).splitlines()) < 30


@pytest.mark.parametrize("name", RESULTS)
def test_results_are_tables_in_a_notebook(name: str) -> None:
    result = RESULTS[name]()
    tags = Tags()
    page = result._repr_html_()
    tags.feed(page)
    assert tags.open == []
    rows = {"report": len(getattr(result, "eps", ())) + 1, "comparison": len(getattr(result, "rows", ())) + 1}
    assert tags.seen.get("tr", 0) >= rows.get(name, 0)
    assert "<b>" not in page.replace("&lt;b&gt;", "")


def test_the_text_of_a_report_has_its_numbers_and_verdicts() -> None:
    report = make_report(200, threshold=0.999)
    for key, count in report.certified_count.items():
        line = next(line for line in str(report).splitlines() if line.split()[:1] == [key])
        assert numbers.percent_down(count, report.samples) in line
    assert "not met" in str(report)
    assert "not met" in report._repr_html_()


@pytest.mark.parametrize(("name", "axes"), [("report", 2), ("comparison", 2), ("bound", 1)])
def test_results_are_drawn_without_a_display(name: str, axes: int) -> None:
    from matplotlib.figure import Figure

    figure = RESULTS[name]().plot()
    assert isinstance(figure, Figure)
    assert len(figure.axes) >= axes
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_there_is_nothing_to_draw_of_a_check() -> None:
    with pytest.raises(UsageError, match="nothing to draw"):
        make_check().plot()


def test_a_bound_shows_itself(module: nn.Module) -> None:
    bound = lipcert.bound(module, input_shape=(1, 6, 6), method="product", lower_seconds=0.0)
    assert len(repr(bound)) < 200
    assert repr(bound.value) in str(bound)
    assert isinstance(bound.document, BoundResult)
    assert bound.document.bound == bound.value
    assert numbers.up(bound.value, 9) in bound._repr_html_()
    assert len(bound.plot().axes) == 1


def test_a_bound_without_layers_is_drawn_beside_its_lower_bound() -> None:
    bound = RESULTS["bound"]().model_copy(update={"contributions": ()})
    assert len(bound.plot().axes) == 2


def test_what_is_noticed_is_shown_in_python_too(module: nn.Module, samples: Any) -> None:
    images, labels = samples
    found = lipcert.certify(module, (images.numpy(), labels.numpy()), eps=8, method="product")
    assert "note: eps 8 is too large" in str(found)
    assert "did you mean 8/255 = 0.03137?" in found._repr_html_()


def test_without_pandas_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match=r"pip install 'lipcert\[pandas\]'"):
        make_report(200).to_pandas()


@pytest.mark.parametrize("name", RESULTS)
def test_data_frames_have_the_rows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    result = RESULTS[name]()
    rows = notebook.records(result)
    assert json.loads(json.dumps(rows)) == rows
    assert len({tuple(row) for row in rows}) == 1
    if name == "report":
        assert [row["eps"] for row in rows] == list(result.eps)
        assert [row["certified_accuracy"] for row in rows] == list(result.certified_accuracy.values())
    if name == "comparison":
        assert [row["method"] for row in rows] == [row.method for row in result.rows]
    pandas = pytest.importorskip("pandas", reason="pandas is an optional extra")
    frame = result.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == len(rows)


def test_samples_become_a_frame_too(module: nn.Module, samples: Any, tmp_path: Path) -> None:
    report = quick(module, DataLoader(TensorDataset(*samples)), folder=tmp_path)
    rows = notebook.records(report, "samples")
    assert [row["index"] for row in rows] == list(range(SAMPLES))
    assert np.mean([row["radius"] for row in rows]) == pytest.approx(report.mean_certified_radius, rel=1e-12)
    with pytest.raises(UsageError, match="folder"):
        notebook.records(make_report(200).model_copy(update={"records": None}), "samples")
