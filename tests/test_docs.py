"""The documentation: every block of README and docs is run, tables equal the code, pages and links exist."""

from __future__ import annotations

import importlib
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pages import PRINTS, Block, Reader, blocks_of, similar

from benchmarks.documentation import PAGES
from benchmarks.pages import between
from lipcert.bounds import lower
from lipcert.proof.local import LOCAL_RULES
from lipcert.proof.rules import RULES
from lipcert.robustness import certifier

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
ALL = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
RUN = ("python", "sh", "console")  # languages of blocks that are run
ELSEWHERE = {"guard-a-model-in-ci.md": "tests/test_guard_in_ci.py follows it, in a folder of its own"}
NOT_RUN = {  # (page, language): why
    ("README.md", "text"): "the set-up lines: tests/test_readme.py and .ci/run run them, word for word",
    ("index.md", "text"): "the set-up lines again",
    ("architecture.md", "text"): "a diagram",
}


def runnable(page: Path) -> list[Block]:
    """Return the blocks that a reader follows: those that are run, those written to files, what they show."""
    return [block for block in blocks_of(page) if block.language in RUN or block.title]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the digits, as the tutorials ask for it; modules that are written there are forgotten again."""
    shutil.copy(ROOT / "examples" / "digits" / "digits.onnx", tmp_path / "model.onnx")
    shutil.copy(ROOT / "examples" / "digits" / "test.npz", tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    search = lower.lower_bound
    for home in (lower, certifier):  # the search for lower bounds takes the seconds it is given
        monkeypatch.setattr(home, "lower_bound", lambda *a, seconds, **k: search(*a, seconds=min(seconds, 0.3), **k))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("page", [p for p in ALL if p.name not in ELSEWHERE and runnable(p)], ids=lambda p: p.stem)
def test_every_block_of_the_page_runs(page: Path, folder: Path) -> None:
    reader = Reader(folder)
    for block in runnable(page):
        reader.follow(block)


def test_blocks_that_are_not_run_are_known() -> None:
    blocks = [block for page in ALL if page.name not in ELSEWHERE for block in blocks_of(page)]
    left = {(b.page, b.language): str(b) for b in blocks if b.language not in RUN and not b.title}
    assert set(left) == set(NOT_RUN) & set(left), f"no reader follows these: {left}"
    assert set(NOT_RUN) == set(left), "reasons for blocks that are gone"
    assert all(page in {p.name for p in ALL} for page in ELSEWHERE)


def test_no_block_is_missed() -> None:
    for page in ALL:
        fences = re.findall(r"^ *```", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert len(fences) == 2 * len(blocks_of(page)), page.name


@pytest.mark.parametrize("page", PAGES)
def test_tables_are_what_the_code_says(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    for name, make in PAGES[page].items():
        assert between(text, name) == make(), "run `python -m benchmarks.documentation` and commit docs/"


def test_the_theory_has_every_rule() -> None:
    text = (DOCS / "theory.md").read_text(encoding="utf-8")
    found = re.findall(r"^###? .*\(`([\w-]+/v\d+)`\)$", text, flags=re.MULTILINE)
    assert sorted(found) == sorted({**RULES, **LOCAL_RULES})


def in_order(entries: list[dict[str, object]]) -> Iterator[str]:
    """Yield the pages of a navigation."""
    for entry in entries:
        for target in entry.values():
            if isinstance(target, list):
                yield from in_order(target)
            else:
                yield str(target)


def test_the_site_has_every_page_once() -> None:
    listed = list(in_order(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    assert sorted(listed) == sorted(page.name for page in DOCS.glob("*.md"))


def test_the_site_asks_for_nothing_from_elsewhere() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert settings["theme"]["font"] is False
    assert "extra_javascript" not in settings
    assert "offline" in settings["plugins"]
    assert settings["extra"]["polyfills"] == ["iframe-worker.js"]
    assert (DOCS / "iframe-worker.js").is_file()


@pytest.mark.parametrize("page", [*ALL, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=lambda p: p.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize(
    ("shown", "actual", "agree"),
    [
        ("bound ≤ 4.44", "bound   ≤ 4.441", True),
        ("bound ≤ 4.44", "bound ≤ 4.9", False),
        ("time ... s on cpu", "time 4.2 s on cpu", True),
        ("91.98 % 551", "91.9 % 550", True),
        ("valid", "invalid", False),
        ("one two", "one", False),
        ("9...% of", "97% of", True),
    ],
)
def test_shown_lines_are_compared(shown: str, actual: str, agree: bool) -> None:
    assert similar(shown, actual) is agree


def test_a_block_that_fails_or_shows_something_else_is_noticed(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    reader.follow(Block("p", 1, "python", "", "print(2)\n"))
    reader.follow(Block("p", 4, "text", PRINTS, "2\n"))
    for block in (
        Block("p", 4, "text", PRINTS, "3\n"),
        Block("p", 8, "sh", "", "lipcert inspect nothing.onnx\n"),
        Block("p", 8, "console", "", "$ lipcert inspect nothing.onnx\n"),
        Block("p", 8, "console", "", "$ lipcert inspect nothing.onnx\n$ echo $?\n4\n"),
    ):
        with pytest.raises(AssertionError):
            reader.follow(block)
    reader.follow(Block("p", 8, "console", "", "$ lipcert inspect nothing.onnx\n$ echo $?\n2\n"))
