"""The tiles and cards of a training run on the report's page. Knows HTML and `TrainingFacts`; not how they came
about.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby, pairwise

from hfray.kinds import charts, html, units
from hfray.kinds.training_curve import loss_chart, metric_chart
from hfray.training.facts import Point, TrainingFacts

MAX_METRICS = 8
"""Of which the course is drawn."""
MAX_EVALUATIONS = 50
MAX_DRAWN = 120
"""Points of the charts beside the loss."""


def tiles(facts: TrainingFacts) -> list[str]:
    """The figures that matter, one each."""
    shown = [html.tile("steps", units.count(facts.step), _steps(facts))]
    if facts.points:
        first = f"from {units.figure(facts.first_loss)}" if len(facts.points) > 1 else ""
        shown.append(
            html.tile("loss", units.figure(facts.final_loss), first, "bad" if facts.final_loss is None else "")
        )
    if facts.best is not None:
        name = facts.metric_for_best or "loss"
        shown.append(html.tile(f"best {_named(name)}", units.figure(facts.best_value), f"at step {facts.best.step:,}"))
    if facts.tokens_per_s:
        padding = f"{100 * facts.padding_waste:.1f} % padding"
        shown.append(html.tile("tokens/s", units.count(round(facts.tokens_per_s)), padding))
    if facts.mfu is not None:
        shown.append(html.tile("MFU", f"{100 * facts.mfu:.1f} %", _peak(facts)))
    if facts.memory_bytes:
        expected = f", {units.size(facts.expected_bytes)} expected" if facts.expected_bytes else ""
        shown.append(html.tile("peak memory", units.size(facts.memory_bytes), f"of a worker{expected}"))
    return shown


def cards(facts: TrainingFacts) -> list[str]:
    """Curves over steps, the evaluations, and how the run was set up."""
    found = [_loss(facts), *_metrics(facts), *_curves(facts), _evaluations(facts), _setup(facts)]
    return [each for each in found if each]


def _loss(facts: TrainingFacts) -> str:
    chart = loss_chart(facts)
    return html.card("Loss", chart) if chart else ""


def _metrics(facts: TrainingFacts) -> list[str]:
    names = [name for name in facts.metric_names if name != "loss"]
    drawn = [(name, metric_chart(facts, name)) for name in names[:MAX_METRICS]]
    return [html.card(_named(name).capitalize(), chart, "validation") for name, chart in drawn if chart]


def _curves(facts: TrainingFacts) -> list[str]:
    points = facts.points
    if len(points) < 2:
        return []
    shown = [_curve(facts, "Learning rate", "learning rate", lambda point: point.learning_rate, from_zero=True)]
    shown.append(_curve(facts, "Gradient norm", "norm", lambda point: point.grad_norm, from_zero=True))
    rates = _rates(points)
    if rates:
        line = charts.Line("", rates)
        chart = charts.lines([line], title="tokens per second over steps", unit="tokens/s", end=facts.step,
                             from_zero=True)  # fmt: skip
        shown.append(html.card("Throughput", chart, f"{units.short(facts.tokens)} tokens, padding apart"))
    if facts.memory_bytes:
        drawn = [charts.Line("largest peak so far", [(each.step, each.memory_bytes / 1e9) for each in _some(points)])]
        if facts.expected_bytes:
            level = facts.expected_bytes / 1e9
            drawn.append(charts.Line("expected", [(0, level), (facts.step, level)], "level"))
        chart = charts.lines(drawn, title="memory over steps", unit="GB", end=facts.step, from_zero=True)
        shown.append(html.card("Memory of a worker", chart))
    return shown


def _curve(
    facts: TrainingFacts, title: str, unit: str, value: Callable[[Point], float | None], *, from_zero: bool
) -> str:
    points = [(point.step, value(point)) for point in _some(facts.points)]
    if all(found is None for _, found in points):
        return ""
    chart = charts.lines(
        [charts.Line("", points)], title=f"{title.lower()} over steps", unit=unit, end=facts.step, from_zero=from_zero
    )
    return html.card(title, chart)


def _evaluations(facts: TrainingFacts) -> str:
    if not facts.evaluations:
        return ""
    names, last = facts.metric_names, len(facts.evaluations) - MAX_EVALUATIONS
    rows = [
        (
            f"{units.count(each.step)}{' (best)' if each.step == facts.best_step else ''}",
            f"{each.epoch:.2f}",
            *(units.figure(each.metrics[name], 6) if name in each.metrics else "" for name in names),
            units.duration(each.seconds),
        )
        for number, each in enumerate(facts.evaluations)
        if number >= last or each.step == facts.best_step
    ]
    table = html.table(("step", "epoch", *names, "time"), rows, num=range(len(names) + 3), css="scroll fixed")
    note = f"last {MAX_EVALUATIONS} of {len(facts.evaluations):,}" if last > 0 else f"{len(facts.evaluations):,}"
    return html.card("Evaluations", table, note)


def _setup(facts: TrainingFacts) -> str:
    worlds = " then ".join(units.count(size) for size, _ in groupby(facts.world_sizes))
    resumed = ", ".join(units.count(step) for step in facts.resumed_from)
    rows = (
        ("method", facts.method),
        ("trained", f"{units.count(facts.trainable)} of {units.count(facts.parameters)} parameters"),
        ("examples", f"{units.count(facts.num_examples)}, {facts.epochs:.3g} epochs of them learned"),
        (
            "batch",
            f"{units.count(facts.global_batch_size)} examples a step: {facts.micro_batch_size} at once, "
            f"{facts.accumulation} times on each worker",
        ),
        ("workers", f"{worlds} on {facts.device}" if worlds else facts.device),
        ("precision", facts.precision),
        ("DeepSpeed", facts.deepspeed),
        ("operations", f"{facts.flops_per_token / 1e9:.3g} GFLOP for a token learned"),
        ("utilisation", "" if facts.mfu is None else f"{100 * facts.mfu:.1f} % {_peak(facts)}"),
        ("time", f"{units.duration(facts.training_s)} training, {units.duration(facts.evaluating_s)} evaluating"),
        ("resumed", f"from step {resumed}" if resumed else ""),
        ("failures", units.count(facts.failures) if facts.failures else ""),
    )
    return html.card("Training", html.facts(rows))


def _rates(points: tuple[Point, ...]) -> list[tuple[float, float | None]]:
    """Tokens per second between points; their steps are those in the middle."""
    return [
        ((before.step + after.step) / 2, (after.tokens - before.tokens) / (after.seconds - before.seconds))
        for before, after in pairwise(_some(points))
        if after.seconds > before.seconds
    ]


def _some(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """At most so many that a small chart can tell apart; the last is among them."""
    stride = -(-len(points) // MAX_DRAWN)
    return points[::-stride][::-1]


def _steps(facts: TrainingFacts) -> str:
    of = f"of {units.count(facts.num_steps)}" if facts.step < facts.num_steps else ""
    return ", ".join(filter(None, (of, f"{facts.epochs:.3g} epochs" if facts.points else "")))


def _peak(facts: TrainingFacts) -> str:
    if facts.peak_flops is None:
        return ""
    return f"of {units.flops(facts.peak_flops)}{f', {facts.peak_source}' if facts.peak_source else ''}"


def _named(name: str) -> str:
    return name.replace("_", " ")
