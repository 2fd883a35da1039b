"""The pages in a browser: nothing scrolls sideways, nothing fails to load, and an accessibility checker finds nothing.

Needs Playwright, a Chromium (``chromium`` on the path, or CHROMIUM), and for one test axe-core: ``npm install
axe-core@4`` in the root of the repository, or LIPCERT_AXE naming its ``axe.min.js``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sample_documents import make_comparison, make_exhibits, make_regression, make_report

from lipcert.report.html import compare_page, regression_page, report_page
from lipcert.results import LayerContribution, Report

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SCHEMES = ("light", "dark")
WIDTHS = (360, 1280)


def hard_report() -> Report:
    """A report whose names, radii and commands are long, with pictures and unmet requirements."""
    report = make_report(500, eps=(1 / 255, 8 / 255, 0.1, 0.25, 0.5, 1.0), threshold=0.999)
    model = report.model.model_copy(update={"path": "models/" + "a_rather_long_name_without_any_blank" * 3 + ".onnx"})
    layer = LayerContribution(node="encoder.blocks.11.mlp.fc2" * 3, kind="Dense", factor=1.25e12, cumulative=1.25e12)
    bound = report.bound.model_copy(update={"contributions": (*report.bound.contributions, layer)})
    return report.model_copy(update={"model": model, "bound": bound, "exhibits": make_exhibits(side=28, count=8)})


PAGES = {
    "report": lambda: report_page(make_report(2_000).model_copy(update={"exhibits": make_exhibits()}), "samples.csv"),
    "hard": lambda: report_page(hard_report(), "samples.csv"),
    "features": lambda: report_page(make_report(500).model_copy(update={"exhibits": make_exhibits(pictures=False)})),
    "bare": lambda: report_page(make_report(300).model_copy(update={"requirements": (), "attacked_count": {}})),
    "cut": lambda: report_page(make_report(300).model_copy(update={"untried_count": {"0.1": 9, "0.3": 5, "0.5": 1}})),
    "regression": lambda: regression_page(make_regression(), "samples.csv"),
    "comparison": lambda: compare_page(make_comparison()),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[browser]'")
    program = os.environ.get("CHROMIUM") or next((p for p in map(shutil.which, NAMES) if p), None)
    if program is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core."""
    path = Path(os.environ.get("LIPCERT_AXE") or ROOT / "node_modules" / "axe-core" / "axe.min.js")
    if not path.is_file():
        pytest.skip("axe-core is not here: npm install axe-core@4, or let LIPCERT_AXE name its axe.min.js")
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The pages as files, by their address."""
    folder = tmp_path_factory.mktemp("pages")
    for name, make in PAGES.items():
        (folder / f"{name}.html").write_text(make(), encoding="utf-8")
    return {name: (folder / f"{name}.html").as_uri() for name in PAGES}


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_layout(browser: Any, files: dict[str, str], name: str, width: int, scheme: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page, troubles = context.new_page(), []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("requestfailed", lambda request: troubles.append(request.url))
    page.goto(files[name])
    assert troubles == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].filter(i => !i.complete || i.naturalWidth === 0).length") == 0
    assert page.evaluate("document.images.length") == page.content().count("<img ")
    for figure in page.query_selector_all("svg"):
        box = figure.bounding_box()
        assert box["width"] > 200 and box["height"] > 100
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
    lightness = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(lightness[:3]) < 3 * 128) == (scheme == "dark")
    context.close()


def test_verdicts_can_be_read_on_a_phone_without_scrolling(browser: Any, files: dict[str, str]) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 800})
    page = context.new_page()
    page.goto(files["hard"])
    words = page.query_selector_all(".met, .unmet")
    assert len(words) == 2
    for word in words:
        box = word.bounding_box()
        assert box["x"] + box["width"] <= 360
    context.close()


def test_what_scrolls_by_itself_is_reached_with_the_keyboard(browser: Any, files: dict[str, str]) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 800})
    page = context.new_page()
    page.goto(files["hard"])
    hidden = """() => [...document.querySelectorAll('*')].filter(e => e.scrollWidth > e.clientWidth + 1
        && getComputedStyle(e).overflowX === 'auto' && e.tabIndex < 0).length"""
    assert page.evaluate(hidden) == 0
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement !== document.body")
    context.close()


def test_paper_is_a4_and_nothing_is_cut_off(browser: Any, files: dict[str, str]) -> None:
    context = browser.new_context(viewport={"width": 673, "height": 952})  # A4 within its margins, at 96 dots per inch
    page = context.new_page()
    page.emulate_media(media="print")
    for name in PAGES:
        page.goto(files[name])
        assert page.evaluate("document.documentElement.scrollWidth") <= 673
        document = page.pdf(prefer_css_page_size=True)
        assert b"/MediaBox [0 0 594.9" in document or b"/MediaBox [0 0 595" in document
    context.close()


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_accessibility(browser: Any, files: dict[str, str], axe: str, name: str, scheme: str, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    page.goto(files[name])
    page.evaluate(axe)
    found = page.evaluate("async () => await axe.run()")
    serious = {
        violation["id"]: [node["html"] for node in violation["nodes"]][:3]
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
    }
    assert serious == {}
    assert "color-contrast" in {rule["id"] for rule in found["passes"]}
    context.close()
