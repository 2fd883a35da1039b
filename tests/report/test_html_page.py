"""The page: well-formed, self-contained, small, and it says what the report says."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from sample_documents import make_bound, make_comparison, make_exhibits, make_refusal, make_report, make_runs

from lipcert.report import wording
from lipcert.report.html import compare_page, report_page, runs_page
from lipcert.results import CompareResult, Histogram, LayerContribution, Report

VOID = {"meta", "br", "link", "img", "hr", "input"}
SHAPES = {"path", "line", "rect", "circle"}


class Page(HTMLParser):
    """Checks that tags are balanced while reading; collects text, attributes and headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute of <{tag}> stands twice"
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in SHAPES
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


PAGES = {
    "report": report_page(make_report()),
    "pictures": report_page(make_report(500).model_copy(update={"exhibits": make_exhibits()}), "samples.csv"),
    "features": report_page(make_report(500).model_copy(update={"exhibits": make_exhibits(pictures=False)})),
    "unmet": report_page(make_report(500, threshold=0.999)),
    "comparison": compare_page(make_comparison()),
    "runs": runs_page(make_runs()),
}


@pytest.mark.parametrize("text", PAGES.values(), ids=PAGES.keys())
def test_pages_are_well_formed_and_need_nothing_else(text: str) -> None:
    page = Page(text)
    assert page.seen[0] == ("html", {"lang": "en"})
    assert not {tag for tag, _ in page.seen} & {"script", "link", "iframe", "object"}
    bare = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", text)
    assert not re.search(r"https?:|//[a-z]|url\(|@import|\bon[a-z]+=", bare)
    for tag, attributes in page.seen:
        assert "srcset" not in attributes
        assert (attributes.get("src") or "").startswith("data:image/png;base64,") == (tag == "img")
        assert (attributes.get("href") or "").startswith("samples.") == (tag == "a")


@pytest.mark.parametrize("text", PAGES.values(), ids=PAGES.keys())
def test_pages_can_be_read_aloud(text: str) -> None:
    page = Page(text)
    names = {attributes["id"] for _, attributes in page.seen if "id" in attributes}
    ids = [attributes["id"] for _, attributes in page.seen if "id" in attributes]
    assert len(ids) == len(names)
    for tag, attributes in page.seen:
        if tag == "svg":
            assert attributes["role"] == "img"
        if tag == "img":
            assert attributes["alt"]
            assert attributes["width"] and attributes["height"]
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
        for label in (attributes.get("aria-labelledby") or "").split():
            assert label in names


def test_headings_go_down_one_level_at_a_time() -> None:
    for text in PAGES.values():
        page = Page(text)
        levels = [int(tag[1]) for tag, _ in page.seen if tag in ("h1", "h2", "h3", "h4")]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))
        assert [tag for tag, _ in page.seen if tag in ("header", "main", "footer")] == ["header", "main", "footer"]


def test_sections_stand_in_the_order_in_which_they_are_read() -> None:
    page = Page(PAGES["pictures"])
    sections = [attributes["aria-labelledby"] for tag, attributes in page.seen if tag == "section"]
    assert sections == [
        "verdict", "claim", "accuracy", "radii", "classes", "bound", "exhibits", "stages", "provenance", "recheck",
    ]  # fmt: skip


@pytest.mark.parametrize(("samples", "most"), [(10_000, 1_000_000), (50_000, 1_500_000)])
def test_sizes_with_pictures_as_large_as_they_get(samples: int, most: int) -> None:
    report = make_report(samples, points=10_000).model_copy(update={"exhibits": make_exhibits(side=64, count=8)})
    assert len(report_page(report, "samples.csv").encode()) < most


def test_pictures_stand_beside_their_originals() -> None:
    page = Page(PAGES["pictures"])
    alternatives = [attributes["alt"] for tag, attributes in page.seen if tag == "img"]
    assert alternatives[:3] == [
        "Sample 7, class 3",
        "What changes in sample 7, with the contrast raised",
        "Adversarial input near sample 7, taken for class 5",
    ]
    assert "class 3, proved within 0.0123 ; class 5 at distance 0.124".replace(" ;", ";") in page.text
    assert page.text.index("The least robust") < page.text.index("Further adversarial inputs")


def test_features_stand_in_tables_with_their_names() -> None:
    page = Page(PAGES["features"])
    assert not [tag for tag, _ in page.seen if tag == "img"]
    assert "speed of <own> ship 0.5 0.625" in page.text


def test_a_report_without_exhibits_has_no_gallery() -> None:
    assert "Samples to look at" in Page(PAGES["pictures"]).text
    assert "Samples to look at" not in Page(PAGES["report"]).text


def test_the_samples_are_linked_where_they_were_written() -> None:
    assert 'href="samples.csv"' in PAGES["pictures"]
    assert "href" not in PAGES["report"]


def test_a_thousand_layers_and_classes_fit_in_a_megabyte() -> None:
    report = make_report(2_000)
    layers = tuple(
        LayerContribution(node=f"layer{k}", kind="Dense", factor=1 + k / 1000, cumulative=2.0) for k in range(1000)
    )
    classes = tuple(report.per_class[0].model_copy(update={"label": k}) for k in range(1000))
    bound = report.bound.model_copy(update={"contributions": layers})
    text = report_page(report.model_copy(update={"bound": bound, "per_class": classes}))
    assert len(text.encode()) < 2**20
    assert "layer999" in text, "the largest factor is kept"
    assert "layer1 " not in text


def test_the_verdict_stands_before_everything_else() -> None:
    met, unmet = Page(PAGES["report"]).text, Page(PAGES["unmet"]).text
    assert met.index("Both requirements are met") < met.index("What is proved")
    assert "1 of 2 requirements is not met" in unmet
    assert "✗ not met" in unmet
    assert "not met" not in met


def test_the_page_says_what_is_proved_and_what_is_not() -> None:
    report = make_report()
    text = Page(report_page(report)).text
    for sentence in (wording.claim(report), wording.LEVELS[report.level], *wording.not_claimed(report)):
        assert " ".join(sentence.split()) in text
    for digest in (report.model.sha256, report.model.weights_digest, report.model.graph_digest):
        assert digest is not None
        assert digest in text
    for step in wording.recheck(report):
        assert step.command in text


def test_names_from_outside_are_escaped() -> None:
    report = make_report(300)
    model = report.model.model_copy(update={"path": "<script>alert(1)</script>.onnx"})
    text = report_page(report.model_copy(update={"model": model}))
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_the_page_without_attack_requirements_and_extras() -> None:
    report = make_report(300)
    bare: dict[str, object] = {
        "empirical_robust_accuracy": {},
        "attacked_count": {},
        "requirements": (),
        "records": None,
        "notes": (),
        "curve": (),
        "per_class": (),
        "per_method": (),
        "histogram": Histogram(edges=(), counts=()),
        "bound": make_bound().model_copy(update={"lower_bound": None, "ratio": None, "contributions": ()}),
    }
    page = Page(report_page(report.model_copy(update=bare)))
    assert "No requirement was set" in page.text
    assert "left by the attack" not in page.text


def test_a_bound_is_never_shown_too_small() -> None:
    bound = make_bound(value=31.503000001)
    report = make_report(300).model_copy(update={"bound": bound})
    assert "31.5031" in Page(report_page(report)).text
    assert "≤ 31.51" in Page(report_page(report)).text


@pytest.mark.parametrize("lower", [None, 0.0, 24.18])
def test_the_ladder_orders_bounds_and_lists_refusals(lower: float | None) -> None:
    text = Page(compare_page(make_comparison().model_copy(update={"lower_bound": lower}))).text
    assert text.index("lipsdp") < text.index("fast") < text.index("product")
    assert "it is for l1, linf, not l2" in text


def test_memory_is_explained_where_it_was_measured() -> None:
    plain = make_comparison()
    rows = tuple(row.model_copy(update={"memory": 5 * 2**20}) for row in plain.rows)
    text = Page(compare_page(plain.model_copy(update={"rows": rows}))).text
    assert "5 MiB" in text and "Memory is what the process held" in text
    assert "Memory is what the process held" not in Page(compare_page(plain)).text


def test_the_ladder_without_any_bound() -> None:
    empty: CompareResult = make_comparison().model_copy(update={"rows": (make_refusal(),), "lower_bound": None})
    assert "No bound" in Page(compare_page(empty)).text


def test_layers_that_do_not_multiply_to_the_bound_say_so() -> None:
    report = make_report(300)
    whole = report.bound.model_copy(update={"bound": report.bound.contributions[-1].cumulative})
    said = "The plain product of the layers' factors would be"
    assert said in Page(report_page(report)).text
    assert said not in Page(report_page(report.model_copy(update={"bound": whole}))).text


def test_a_report_at_level_estimate_claims_no_proof() -> None:
    report: Report = make_report(300).model_copy(update={"level": "estimate"})
    assert "proved" not in wording.claim(report)
