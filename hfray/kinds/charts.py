"""Small SVG charts as text, without a dependency. Knows numbers, ticks and escaping; not what they mean.

Each function returns one <svg> for a page that carries `STYLE`; colours are CSS variables that follow the reader's
light or dark scheme, and each mark tells its number in a <title>, which browsers show as a tooltip.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby, pairwise
from typing import Literal
from unicodedata import east_asian_width

from hfray.kinds import units

STYLE = """
:root { color-scheme: light dark; --surface: #ffffff; --page: #f6f7f9; --ink: #1c2430; --muted: #657080;
  --line: #dfe3e8; --accent: #2f6fb5; --accent-2: #b9c3cf; --second: #b8590f; --good: #1f7a4d; --warn: #96660a;
  --bad: #b3372f; }
@media (prefers-color-scheme: dark) { :root { --surface: #1a2029; --page: #12161c; --ink: #e6eaf0; --muted: #98a3b3;
  --line: #303947; --accent: #6aa6e6; --accent-2: #465264; --second: #eda25f; --good: #5dc28e; --warn: #dcab4a;
  --bad: #ee857c; } }
svg.chart { display: block; width: 100%; height: auto; overflow: visible; }
.chart text { font: 11px system-ui, sans-serif; fill: var(--muted); font-variant-numeric: tabular-nums; }
.chart .name { fill: var(--ink); }
.chart .grid { stroke: var(--line); stroke-width: 1; }
.chart .line { fill: none; stroke: var(--accent); stroke-width: 1.75; stroke-linejoin: round; }
.chart .line.faint { stroke-width: 1; opacity: .35; }
.chart .line.second { stroke: var(--second); }
.chart .line.level { stroke: var(--muted); stroke-dasharray: 4 3; stroke-width: 1.25; }
.chart .dot { fill: var(--accent); }
.chart .dot.second { fill: var(--second); }
.chart .dot.best { fill: var(--surface); stroke: var(--good); stroke-width: 2; }
.chart .area { fill: var(--accent); opacity: .14; }
.chart .bar { fill: var(--accent); }
.chart .bar.rest { fill: var(--accent-2); }
.chart .bar.bad { fill: var(--bad); }
.chart .hit { fill: transparent; }
.chart .hit:hover { fill: var(--accent); opacity: .18; }
.chart .bar:hover { opacity: .8; }
"""

WIDTH, HEIGHT = 460, 210
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 22, 38
MAX_HITS = 100
"""Columns of a line chart that tell their number: a page of many charts stays small."""
_TIME_UNITS = ((86400.0, 2 * 86400.0, "days"), (3600.0, 3 * 3600.0, "h"), (60.0, 180.0, "min"), (1.0, 0.0, "s"))


def ticks(maximum: float, most: int = 5, whole: bool = False) -> list[float]:
    """Round steps (1, 2 or 5 times a power of ten) from 0 to the first one at or above `maximum`."""
    if maximum <= 0:
        return [0.0, 1.0]
    rough = maximum / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    if whole:
        step = max(1.0, step)
    return [index * step for index in range(math.ceil(maximum / step - 1e-9) + 1)]


def span(low: float, high: float, most: int = 5) -> list[float]:
    """Round steps from at or below `low` to at or above `high`; equal ones get room on both sides."""
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        room = abs(high) / 10 or 1.0
        low, high = low - room, high + room
    step = ticks(high - low, most)[1]
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def area(points: Sequence[tuple[float, float]], *, title: str, unit: str, end_s: float) -> str:
    """A rate over time. points: (seconds, value), seconds rising; end_s: where the time axis ends."""
    scale, _, time_unit = next(known for known in _TIME_UNITS if end_s >= known[1])
    end = max(end_s, 1e-9)
    y_ticks = ticks(max((value for _, value in points), default=0))
    parts = _y_axis(y_ticks, unit)
    for tick in ticks(end / scale, 6):
        if tick * scale <= end * (1 + 1e-9):
            parts.append(_text(_x(tick * scale / end), HEIGHT - BOTTOM + 16, units.short(tick), anchor="middle"))
    parts.append(_text(_x(0.5), HEIGHT - 4, f"time, {time_unit}", anchor="middle"))
    if points:
        flat = [(0.0, points[0][1]), *points, (end, points[-1][1])]
        line = " ".join(f"{_x(min(at / end, 1)):.1f},{_y(value / y_ticks[-1]):.1f}" for at, value in flat)
        parts.append(f'<polygon class="area" points="{_x(0):.1f},{_y(0):.1f} {line} {_x(1):.1f},{_y(0):.1f}"/>')
        parts.append(f'<polyline class="line" points="{line}"/>')
    edges = [0.0, *((a + b) / 2 for (a, _), (b, _) in pairwise(points)), end]
    for (at, value), left, right in zip(points, edges, edges[1:], strict=False):
        hint = f"{units.count(value)} {unit} at {units.duration(at)}"
        parts.append(_rect("hit", _x(left / end), TOP, _x(right / end) - _x(left / end), HEIGHT - TOP - BOTTOM, hint))
    return _svg(title, HEIGHT, parts)


@dataclass(frozen=True, slots=True)
class Line:
    """One of a chart's lines. points: (x, value), x rising; a value that is None leaves a gap."""

    name: str
    """For the legend; "" stays out of it."""
    points: Sequence[tuple[float, float | None]]
    css: Literal["", "faint", "second", "level", "best"] = ""
    """How it looks: the accent colour, a trace behind it, another colour, a dashed level, a ring for each point."""
    dots: bool = False
    """Whether each point is marked, and tells its number."""


def lines(
    drawn: Sequence[Line], *, title: str, unit: str, end: float, x_name: str = "step", from_zero: bool = False
) -> str:
    """Values over steps, from 0 to `end`. The columns of the first line tell its numbers."""
    end = max(end, 1e-9)
    values = [value for line in drawn for _, value in line.points if value is not None]
    values += [0.0] if from_zero or not values else []
    y_ticks = span(min(values), max(values))
    low, high = y_ticks[0], y_ticks[-1]
    parts = _grid([(tick - low) / (high - low) for tick in y_ticks], [_tick(tick, y_ticks) for tick in y_ticks])
    parts += [_text(0, 11, unit), *_legend(drawn)]
    for tick in ticks(end, 6, whole=True):
        if tick <= end * (1 + 1e-9):
            parts.append(_text(_x(tick / end), HEIGHT - BOTTOM + 16, units.short(tick), anchor="middle"))
    parts.append(_text(_x(0.5), HEIGHT - 4, x_name, anchor="middle"))
    dots = []  # above the columns, which would hide their numbers
    for line in drawn:
        places = [(_x(x / end), None if y is None else _y((y - low) / (high - low))) for x, y in line.points]
        for drawable, run in groupby(places, lambda place: place[1] is not None):
            if drawable and line.css != "best":
                joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in run)
                parts.append(f'<polyline class="{_css("line", line)}" points="{joined}"/>')
        if line.dots:
            radius = 5 if line.css == "best" else 2.5
            dots += [
                f'<circle class="{_css("dot", line)}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}">'
                f"<title>{escape(_at(line, x_name, at, value))}</title></circle>"
                for (x, y), (at, value) in zip(places, line.points, strict=True)
                if y is not None and value is not None
            ]
    return _svg(title, HEIGHT, [*parts, *(_hits(drawn[0], end, x_name) if drawn else ()), *dots])


def histogram(edges: Sequence[float], counts: Sequence[int], *, title: str, unit: str, noun: str = "rows") -> str:
    """Bars of equal width between neighbouring edges, one more edge than counts; the last edge may be infinite."""
    used = [index for index, number in enumerate(counts) if number] or [0]
    first, last = (used[0], used[-1]) if math.isinf(edges[-1]) else (0, len(counts) - 1)
    first = max(0, min(first - 1, last - 6))  # a lone bar, as wide as the chart, would tell nothing
    last = min(len(counts) - 1, max(last, first + 7))
    shown, total = counts[first : last + 1], sum(counts)
    y_ticks = ticks(max(shown), whole=True)
    parts = _y_axis(y_ticks, noun)
    step = math.ceil((len(shown) + 1) / 10.5)
    for index in range(0, len(shown) + 1, step):
        edge = edges[first + index]
        name = "∞" if math.isinf(edge) else units.count(edge)
        parts.append(_text(_x(index / len(shown)), HEIGHT - BOTTOM + 16, name, anchor="middle"))
    parts.append(_text(_x(0.5), HEIGHT - 4, unit, anchor="middle"))
    for index, number in enumerate(shown):
        low, high = edges[first + index], edges[first + index + 1]
        reach = f"over {units.count(low)}" if math.isinf(high) else f"{units.count(low)} to {units.count(high)}"
        hint = f"{reach} {unit}: {units.count(number)} {noun} ({units.percent(number, total)})"
        left, right = _x(index / len(shown)), _x((index + 1) / len(shown))
        top = _y(number / y_ticks[-1])
        if number:
            top = min(top, _y(0) - 1)
            parts.append(_rect("bar", left + 1, top, max(right - left - 2, 1), _y(0) - top, hint))
    return _svg(title, HEIGHT, parts)


def bars(counts: Sequence[tuple[str, int]], *, title: str, noun: str = "rows", style: str = "bar") -> str:
    """Horizontal bars in the given order, the name and the count above each; "" is named "all others"."""
    row, total, largest = 30, sum(number for _, number in counts), max((number for _, number in counts), default=0)
    parts = []
    for index, (name, number) in enumerate(counts):
        y = index * row
        hint = f"{name or 'all others'}: {units.count(number)} {noun} ({units.percent(number, total)})"
        width = max(1.0, (WIDTH - 2) * number / largest) if number else 0.0
        parts.append(_text(0, y + 12, _cut(name or "all others", 40), css="name"))
        parts.append(_text(WIDTH, y + 12, f"{units.count(number)} · {units.percent(number, total)}", anchor="end"))
        parts.append(_rect(style if name else f"{style} rest", 0, y + 17, width, 7, hint))
    return _svg(title, max(row * len(counts), 1), parts)


def share(parts_of_whole: Sequence[tuple[str, int]], *, title: str, noun: str) -> str:
    """One bar split among at most three named parts: the first in the accent colour, the others muted."""
    total, x, marks = sum(number for _, number in parts_of_whole), 0.0, []
    for index, (name, number) in enumerate(parts_of_whole):
        width = WIDTH * number / total if total else 0.0
        hint = f"{name}: {units.count(number)} {noun} ({units.percent(number, total)})"
        marks.append(_rect("bar rest" if index else "bar", x, 4, width, 18, hint))
        x += width
        label_x, anchor = (0.0, "start") if index == 0 else (float(WIDTH), "end")
        middle = 0 < index < len(parts_of_whole) - 1
        if middle:
            label_x, anchor = WIDTH / 2, "middle"
        marks.append(_text(label_x, 40, f"{name} {units.percent(number, total)}", anchor=anchor))
    return _svg(title, 48, marks)


def _y_axis(y_ticks: Sequence[float], unit: str) -> list[str]:
    shares = [tick / y_ticks[-1] for tick in y_ticks]
    return [_text(0, 11, unit), *_grid(shares, [units.short(tick) for tick in y_ticks])]


def _grid(shares_of_height: Sequence[float], names: Sequence[str]) -> list[str]:
    parts = []
    for share_of_height, name in zip(shares_of_height, names, strict=True):
        y = _y(share_of_height)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(LEFT - 6, y + 4, name, anchor="end"))
    return parts


def _tick(value: float, neighbours: Sequence[float]) -> str:
    """With as many digits as it takes to tell it from its neighbours."""
    step = neighbours[1] - neighbours[0]
    if abs(value) < step / 2:
        return "0"
    if abs(value) >= 1000:
        return units.short(value)
    if max(map(abs, neighbours)) < 0.01:
        digits, power = f"{value:.2e}".split("e")
        return f"{float(digits):g}e{int(power)}"
    return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


def _legend(drawn: Sequence[Line]) -> list[str]:
    """Against the right edge; the width of the text is estimated, for the larger letters of a phone."""
    named = [line for line in drawn if line.name]
    if len(named) < 2:
        return []
    names = [_cut(line.name, 20) for line in named]
    parts, left = [], WIDTH - RIGHT - sum(7 * len(name) + 30 for name in names) + 12
    for line, name in zip(named, names, strict=True):
        if line.css == "best":
            parts.append(f'<circle class="{_css("dot", line)}" cx="{left + 11}" cy="7" r="4"/>')
        else:
            parts.append(f'<polyline class="{_css("line", line)}" points="{left},7 {left + 16},7"/>')
        parts.append(_text(left + 21, 11, name))
        left += 7 * len(name) + 30
    return parts


def _hits(line: Line, end: float, x_name: str) -> list[str]:
    """Invisible columns over the chart that tell the numbers of a line; of many points some."""
    known = [(x, value) for x, value in line.points if value is not None]
    known = known[:: -(-len(known) // MAX_HITS)] if known else []
    edges = [0.0, *((a + b) / 2 for (a, _), (b, _) in pairwise(known)), end]
    return [
        _rect(
            "hit",
            _x(left / end),
            TOP,
            _x(right / end) - _x(left / end),
            HEIGHT - TOP - BOTTOM,
            _at(line, x_name, x, value),
        )
        for (x, value), left, right in zip(known, edges, edges[1:], strict=False)
    ]


def _at(line: Line, x_name: str, x: float, value: float) -> str:
    return f"{x_name} {units.count(x)}: {f'{line.name} ' if line.name else ''}{value:.4g}"


def _css(base: str, line: Line) -> str:
    return f"{base} {line.css}" if line.css else base


def _x(share_of_width: float) -> float:
    return LEFT + share_of_width * (WIDTH - LEFT - RIGHT)


def _y(share_of_height: float) -> float:
    return HEIGHT - BOTTOM - share_of_height * (HEIGHT - TOP - BOTTOM)


def _cut(text: str, most: int) -> str:
    """At most `most` columns of text; a Chinese character takes two."""
    width = 0
    for index, char in enumerate(text):
        width += 2 if east_asian_width(char) in "WF" else 1
        if width > most:
            return text[: max(0, index - 1)] + "…"
    return text


def _text(x: float, y: float, text: str, *, anchor: str = "start", css: str = "") -> str:
    style = f' class="{css}"' if css else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{escape(text)}</text>'


def _rect(css: str, x: float, y: float, width: float, height: float, hint: str) -> str:
    box = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect class="{css}" {box}><title>{escape(hint)}</title></rect>'


def _svg(title: str, height: int, parts: Iterable[str]) -> str:
    opening = f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
    return "\n".join((opening, *parts, "</svg>"))
