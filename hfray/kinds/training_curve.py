"""The training curve as a picture of a model card: an SVG file of its own. Knows `TrainingFacts` and charts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from hfray.kinds import charts
from hfray.training.facts import Point, TrainingFacts

MARGIN = 16
MAX_DOTS = 60
"""Evaluations that are marked one by one."""
_SMOOTHED_FROM = 40
"""Logged steps from which on a trace is smoothed: fewer are read as they are."""


def curve_svg(facts: TrainingFacts) -> str:
    """Loss, and the metric that decides, over steps: on white, without a reference to anything outside."""
    panels = [loss_chart(facts) or charts.lines([], title="loss over steps", unit="loss", end=facts.step)]
    if facts.metric_for_best not in (None, "loss"):
        panels.append(metric_chart(facts, facts.metric_for_best or ""))
    return _alone([panel for panel in panels if panel], title="training curve")


def loss_chart(facts: TrainingFacts) -> str:
    """Of training, smoothed where there are many steps, and of the evaluations. "" where neither was logged."""
    trace = [(point.step, point.loss) for point in facts.points]
    drawn = [charts.Line("training", trace, dots=len(trace) == 1)]
    if len(trace) >= _SMOOTHED_FROM:
        drawn = [charts.Line("training, smoothed", smoothed(facts.points)), charts.Line("", trace, "faint")]
    evaluated = [(each.step, each.metrics["loss"]) for each in facts.evaluations if "loss" in each.metrics]
    if evaluated:
        drawn.append(charts.Line("validation", evaluated, "second", dots=len(evaluated) <= MAX_DOTS))
    if not any(value is not None for line in drawn for _, value in line.points):
        return ""
    return charts.lines(drawn, title="loss over steps", unit="loss", end=facts.step)


def metric_chart(facts: TrainingFacts, name: str) -> str:
    """Of the evaluations, the best one marked. "" where none has it."""
    points = [(each.step, each.metrics.get(name)) for each in facts.evaluations]
    if all(value is None for _, value in points):
        return ""
    drawn = [charts.Line(name, points, "second", dots=len(points) <= MAX_DOTS)]
    if facts.best is not None and name == (facts.metric_for_best or "loss"):
        best = (facts.best.step, facts.best.metrics.get(name))
        drawn.append(charts.Line(f"best at step {facts.best.step:,}", [best], "best", dots=True))
    return charts.lines(drawn, title=f"{name} over steps", unit=name, end=facts.step)


def smoothed(points: Sequence[Point]) -> list[tuple[float, float | None]]:
    """The mean loss of a window around each point, 5 % of the steps wide; a gap where nothing in it is finite."""
    reach = (points[-1].step - points[0].step) / 40
    result: list[tuple[float, float | None]] = []
    first = last = 0
    for point in points:
        while points[first].step < point.step - reach:
            first += 1
        while last < len(points) and points[last].step <= point.step + reach:
            last += 1
        near = [each.loss for each in points[first:last] if each.loss is not None]
        result.append((point.step, sum(near) / len(near) if near else None))
    return result


def _alone(panels: Sequence[str], *, title: str) -> str:
    """Charts side by side. Custom properties, which not every program knows, become the colours of the light scheme."""
    light = dict(re.findall(r"--([\w-]+): ([^;]+);", charts.STYLE.split("@media")[0]))
    rules = charts.STYLE[charts.STYLE.index(".chart text") :]
    rules = re.sub(r"var\(--([\w-]+)\)", lambda found: light[found[1]], rules)
    rules = rules.replace("system-ui, sans-serif", "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif")
    width = len(panels) * (charts.WIDTH + MARGIN) + MARGIN
    height = charts.HEIGHT + 2 * MARGIN
    placed = []
    for index, panel in enumerate(panels):
        place = f'x="{MARGIN + index * (charts.WIDTH + MARGIN)}" y="{MARGIN}"'
        size = f'width="{charts.WIDTH}" height="{charts.HEIGHT}"'
        placed.append(panel.replace("<svg ", f"<svg {place} {size} ", 1))
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(title)}">'
    )
    ground = f'<rect width="{width}" height="{height}" rx="6" fill="{light["surface"]}"/>'
    return "\n".join((opening, f"<style>{rules}</style>", ground, *placed, "</svg>", ""))
