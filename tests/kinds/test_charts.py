from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from hfray.kinds import charts


def parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def titles(svg: str) -> list[str]:
    return [element.text or "" for element in parse(svg).iter("title")]


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in parse(svg).iter("text")]


@pytest.mark.parametrize(
    ("maximum", "wanted"),
    [(0, [0, 1]), (1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (7, [0, 2, 4, 6, 8]), (500, [0, 100, 200, 300, 400, 500]),
     (501, [0, 200, 400, 600]), (0.003, [0, 0.001, 0.002, 0.003]), (1e9, [0, 2e8, 4e8, 6e8, 8e8, 1e9])],
)  # fmt: skip
def test_ticks_are_round_and_reach_the_maximum(maximum: float, wanted: list[float]) -> None:
    assert charts.ticks(maximum) == pytest.approx(wanted)


def test_counts_have_whole_ticks() -> None:
    assert charts.ticks(2, whole=True) == [0, 1, 2]
    assert charts.ticks(1, whole=True) == [0, 1]


def test_area() -> None:
    svg = charts.area([(0.5, 100), (1.5, 200), (2.25, 50)], title="speed", unit="rows/s", end_s=2.5)
    assert titles(svg) == ["100 rows/s at 0.50 s", "200 rows/s at 1.5 s", "50 rows/s at 2.2 s"]
    assert {"rows/s", "time, s", "200", "2.5"} <= set(texts(svg))
    (line,) = parse(svg).iter("polyline")
    points = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
    assert points[2][1] == charts.TOP  # 200 is the highest tick
    assert all(charts.LEFT <= x <= charts.WIDTH - charts.RIGHT for x, _ in points)


@pytest.mark.parametrize(("end_s", "unit"), [(100, "s"), (600, "min"), (20_000, "h"), (400_000, "days")])
def test_the_time_axis_has_a_fitting_unit(end_s: float, unit: str) -> None:
    svg = charts.area([(end_s / 2, 1)], title="t", unit="rows/s", end_s=end_s)
    assert f"time, {unit}" in texts(svg)
    assert len(texts(svg)) < 20


def test_area_of_nothing() -> None:
    assert titles(charts.area([], title="t", unit="u", end_s=0)) == []
    assert len(titles(charts.area([(0.0, 0.0)], title="t", unit="u", end_s=0.0))) == 1


def test_histogram_shows_the_used_bins_of_an_open_scale() -> None:
    edges = [0, *(2**index for index in range(14)), math.inf]
    counts = [0] * 15
    counts[5], counts[6], counts[14] = 10, 1, 4
    svg = charts.histogram(edges, counts, title="lengths", unit="tokens", noun="items")
    assert titles(svg)[0] == "16 to 32 tokens: 10 items (66.7 %)"
    assert titles(svg)[-1] == "over 8,192 tokens: 4 items (26.7 %)"
    assert "∞" in texts(svg) or "8,192" in texts(svg)
    heights = [float(bar.attrib["height"]) for bar in parse(svg).iter("rect")]
    assert heights[0] == pytest.approx(10 * heights[1], abs=1)


@pytest.mark.parametrize("used", [0, 3, 14])
def test_a_lone_bar_has_neighbours(used: int) -> None:
    edges = [*range(15), math.inf]
    counts = [0] * 15
    counts[used] = 3
    svg = charts.histogram(edges, counts, title="t", unit="u")
    (bar,) = parse(svg).iter("rect")
    assert float(bar.attrib["width"]) < charts.WIDTH / 4
    assert len(titles(svg)) == 1


def test_histogram_shows_a_closed_scale_whole() -> None:
    svg = charts.histogram([0, 0.25, 0.5, 0.75, 1], [0, 0, 5, 0], title="t", unit="score")
    assert {"0", "0.25", "0.5", "0.75", "1"} <= set(texts(svg))
    assert titles(charts.histogram([0, 1], [0], title="t", unit="score")) == []


def test_bars() -> None:
    svg = charts.bars([("<script>", 30), ("x" * 100, 10), ("卡" * 40, 9), ("", 1), ("none", 0)], title='"<t>"')
    assert titles(svg)[0] == "<script>: 30 rows (60.0 %)"
    assert titles(svg)[3] == "all others: 1 rows (2.0 %)"
    names = texts(svg)[::2]
    assert names[1] == "x" * 39 + "…"
    assert names[2] == "卡" * 19 + "…"
    assert names[3] == "all others"
    assert parse(svg).attrib["aria-label"] == '"<t>"'
    widths = [float(bar.attrib["width"]) for bar in parse(svg).iter("rect")]
    assert widths[0] == pytest.approx(3 * widths[1], abs=0.2)
    assert widths[4] == 0
    assert parse(charts.bars([], title="t")).tag == "svg"


def test_share() -> None:
    svg = charts.share([("tokens", 97), ("padding", 3)], title="t", noun="positions")
    assert titles(svg) == ["tokens: 97 positions (97.0 %)", "padding: 3 positions (3.0 %)"]
    widths = [float(bar.attrib["width"]) for bar in parse(svg).iter("rect")]
    assert sum(widths) == pytest.approx(charts.WIDTH, abs=0.2)
    assert parse(charts.share([("a", 0), ("b", 0)], title="t", noun="n")).tag == "svg"


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [(0.3, 4.2, [0, 1, 2, 3, 4, 5]), (0.9012, 0.9024, [0.901, 0.9015, 0.902, 0.9025]), (-3, 1, [-3, -2, -1, 0, 1]),
     (2, 2, [1.8, 1.9, 2.0, 2.1, 2.2]), (0, 0, [-1, -0.5, 0, 0.5, 1])],
)  # fmt: skip
def test_a_span_is_round_and_reaches_both_ends(low: float, high: float, wanted: list[float]) -> None:
    assert charts.span(low, high) == pytest.approx(wanted)


def drawn(svg: str) -> list[list[tuple[float, float]]]:
    """The polylines within the axes: those of the legend stand above."""
    found = []
    for line in parse(svg).iter("polyline"):
        points = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
        if any(y >= charts.TOP for _, y in points):
            found.append([(x, y) for x, y in points])
    return found


def test_lines_share_their_axes() -> None:
    trace = charts.Line("training", [(10, 4.0), (20, 2.0), (100, 1.0)])
    evaluations = charts.Line("validation", [(50, 3.0), (100, 2.0)], "second", dots=True)
    svg = charts.lines([trace, evaluations], title="loss over steps", unit="loss", end=100)
    first, second = drawn(svg)
    bottom = charts.HEIGHT - charts.BOTTOM
    assert [y for _, y in first] == pytest.approx(
        [charts.TOP, charts.TOP + (bottom - charts.TOP) * 2 / 3, bottom], abs=0.1
    )
    assert second[1][1] == first[1][1]
    assert first[2][0] == second[1][0] == charts.WIDTH - charts.RIGHT
    assert {"training", "validation", "loss", "step", "1", "4", "100"} <= set(texts(svg))
    assert "step 20: training 2" in titles(svg)
    assert "step 50: validation 3" in titles(svg)


def test_a_missing_value_leaves_a_gap() -> None:
    svg = charts.lines([charts.Line("", [(1, 1.0), (2, 2.0), (3, None), (4, 1.0)])], title="t", unit="u", end=4)
    assert [len(run) for run in drawn(svg)] == [2, 1]
    assert len(titles(svg)) == 3


def test_a_chart_may_start_at_zero() -> None:
    line = charts.Line("", [(1, 90.0), (2, 100.0)])
    assert {"20", "100"} <= set(texts(charts.lines([line], title="t", unit="u", end=2, from_zero=True)))
    assert min(map(float, texts(charts.lines([line], title="t", unit="u", end=2))[:6])) == 90


def test_many_points_tell_some_of_their_numbers() -> None:
    line = charts.Line("", [(step, float(step)) for step in range(1, 501)])
    svg = charts.lines([line], title="t", unit="u", end=500)
    assert len(titles(svg)) == charts.MAX_HITS
    assert len(drawn(svg)[0]) == 500
    assert len(svg) < 25_000


def test_lines_of_nothing() -> None:
    assert titles(charts.lines([charts.Line("", [])], title="t", unit="u", end=0)) == []
    assert drawn(charts.lines([charts.Line("", [(1, None)])], title="t", unit="u", end=1)) == []


@pytest.mark.parametrize(
    ("values", "wanted"),
    [([2e-4, 1e-3], "4e-4"), ([0.9012, 0.9024], "0.9015"), ([0, 2e6], "500k"), ([-3, 1], "-2"), ([0, 0.05], "0.02")],
)
def test_ticks_can_be_told_from_their_neighbours(values: list[float], wanted: str) -> None:
    svg = charts.lines([charts.Line("", list(enumerate(values)))], title="t", unit="u", end=1)
    assert wanted in texts(svg)


def test_names_of_lines_are_escaped() -> None:
    lines = [charts.Line("<b>", [(1, 1.0)], dots=True), charts.Line("best", [(1, 1.0)], "best", dots=True)]
    svg = charts.lines(lines, title='"<t>"', unit="<u>", end=1)
    assert {"<b>", "<u>", "best"} <= set(texts(svg))
    assert "step 1: <b> 1" in titles(svg)


def test_colours_are_variables_with_a_dark_scheme() -> None:
    rules = charts.STYLE.split("svg.chart", 1)[1]
    assert not re.search(r"#[0-9a-f]{3}", rules)
    light, dark = charts.STYLE.split("prefers-color-scheme: dark")
    names = set(re.findall(r"(--[\w-]+):", light))
    assert set(re.findall(r"(--[\w-]+):", dark)) == names
    assert set(re.findall(r"var\((--[\w-]+)\)", charts.STYLE)) <= names
