from __future__ import annotations

import re
from html.parser import HTMLParser

from hfray.kinds.charts import STYLE as CHART_STYLE
from hfray.kinds.report import FileFailure, ModelFacts, Report, Session
from hfray.kinds.report_html import MAX_LABEL_BARS, MAX_SESSIONS, render
from hfray.kinds.report_style import STYLE
from tests.kinds.test_report import make_report

VOID = {"meta", "link", "br", "hr", "img", "input"}
EVIL = "<script>alert(1)</script>\"'&<img src=x onerror=y>"


class Page(HTMLParser):
    """Checks that tags nest, and collects tags, attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parse(report: Report) -> Page:
    page = Page(render(report))
    assert page.open == []
    return page


def test_everything_is_told() -> None:
    page = parse(make_report())
    for part in ("banking-intents", "complete", "text-classification", "org/model", "1,200", "rows per second", "3.0 %",
                 "30 rows", "Throughput", "Length of the inputs", "Labels", "Scores", "Metrics", "0.875", "NullText",
                 "hfray run jobs/intents.yaml --retry-errors", "errors.parquet", "Sessions", "interrupted",
                 "66,000,000", "90 MB, stored as 264 MB", "int8", "kind: score", "f" * 64, "ray 2.60.0",
                 "200 from earlier sessions", "2 workers, 90 % busy"):  # fmt: skip
        assert part in page.text, part
    assert page.tags.count("svg") == 5
    assert "details" in page.tags


def test_nothing_is_fetched() -> None:
    html = render(make_report(name="see http://example.org/x", model=ModelFacts(path="https://example.org/m")))
    page = Page(html)
    for name, value in page.attributes:
        if name in {"src", "href", "srcset", "action", "xlink:href", "poster"}:
            assert value.startswith("data:"), (name, value)
        assert not name.startswith("on")
    assert not {"script", "iframe", "img", "object", "embed", "form", "base"} & set(page.tags)
    assert "@import" not in html
    assert "url(" not in html
    assert ("http-equiv", "Content-Security-Policy") in page.attributes
    assert any(value.startswith("default-src 'none'") for name, value in page.attributes if name == "content")


def test_text_from_outside_is_escaped() -> None:
    report = make_report(
        name=EVIL,
        label=EVIL,
        task=EVIL,
        message=EVIL,
        model=ModelFacts(path=EVIL, revision=EVIL, architecture=EVIL, dtype=EVIL, adapter=EVIL, device=EVIL),
        metrics={EVIL: 1.0},
        error_types={EVIL: 12},
        file_failures=(FileFailure(path=EVIL, message=EVIL),),
        versions={EVIL: EVIL},
        output=EVIL,
        job=EVIL,
        log=EVIL,
        fingerprint=EVIL,
        spec=EVIL,
    )
    html = render(report)
    assert "<script" not in html
    assert "<img" not in html
    page = Page(html)
    assert page.text.count("<script>alert(1)</script>") >= 15
    assert not {"script", "img"} & set(page.tags)
    assert not any(name == "onerror" for name, _ in page.attributes)


def test_a_job_with_nothing_to_show() -> None:
    page = parse(Report(name="x", kind="score", status="failed", message="no rows"))
    assert "no rows" in page.text
    assert "svg" not in page.tags
    for absent in ("Throughput", "Failed rows", "Sessions", "Resolved spec", "Model"):
        assert absent not in page.text


def test_long_lists_are_bounded() -> None:
    report = make_report(
        labels={f"label-{index:04}": 5000 - index for index in range(400)} | {"": 7},
        earlier=tuple(Session(started_at=float(index), wall_s=1.0, rows=1) for index in range(200)),
        file_failures=tuple(FileFailure(path=f"file-{index}", message="cut") for index in range(200)),
    )
    page = parse(report)
    assert f"{MAX_LABEL_BARS} most frequent of 400" in page.text
    assert "all others" in page.text
    assert "label-0399" not in page.text
    assert f"last {MAX_SESSIONS} of 201" in page.text
    assert "file-199" not in page.text
    assert len(render(report)) < 200_000


def test_it_fits_a_phone_and_a_dark_room() -> None:
    assert ("name", "viewport") in parse(make_report()).attributes
    assert "prefers-color-scheme: dark" in CHART_STYLE
    assert "max-width: 46rem" in STYLE
    known = set(re.findall(r"(--[\w-]+):", CHART_STYLE))
    assert set(re.findall(r"var\((--[\w-]+)\)", STYLE)) <= known
