"""The rows of the summary's table that tell of a training run. Knows a report's plain values; not how they
came about.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import TYPE_CHECKING

from hfray.kinds import units
from hfray.training.facts import TrainingFacts

if TYPE_CHECKING:
    from hfray.kinds.report import Report

Figure = tuple[str, str, str, str]
"""Label, value, note, style of the value."""


def training_figures(report: Report, facts: TrainingFacts) -> list[Figure]:
    """How far it came, how good it became, how fast it was, and what it took."""
    return [*_steps(facts), *_loss(facts), *_metrics(report.metrics, facts), *_speed(facts), *_workers(report, facts)]


def _steps(facts: TrainingFacts) -> list[Figure]:
    of = f"of {units.count(facts.num_steps)}" if facts.step < facts.num_steps else ""
    epochs = f"{facts.epochs:.3g} epochs of {units.plural(facts.num_examples, 'example')}" if facts.points else ""
    share = units.percent(facts.trainable, facts.parameters)
    what = f"of {units.short(facts.parameters)} parameters, {share}"
    rows = [
        ("steps", units.count(facts.step), _joined(of, epochs, f"{facts.global_batch_size} a step"), "bold"),
        (facts.method, units.short(facts.trainable), what if facts.trainable < facts.parameters else "parameters", ""),
    ]
    if facts.resumed_from or facts.failures:
        failures = units.plural(facts.failures, "failure") if facts.failures else ""
        steps = " and ".join(units.count(step) for step in facts.resumed_from[-3:])
        note = _joined(f"last from step {steps}" if len(facts.resumed_from) > 3 else f"from step {steps}", failures)
        rows.append(("resumed", units.count(len(facts.resumed_from)), note, ""))
    return rows


def _loss(facts: TrainingFacts) -> list[Figure]:
    if not facts.points:
        return []
    first = f"from {units.figure(facts.first_loss)}" if len(facts.points) > 1 else ""
    return [("loss", units.figure(facts.final_loss), first, "bold red" if facts.final_loss is None else "bold")]


def _metrics(reported: Mapping[str, float | None], facts: TrainingFacts) -> list[Figure]:
    """Those of the report; where it has none, those of the best evaluation or of the last one."""
    shown = facts.best or (facts.evaluations[-1] if facts.evaluations else None)
    values = reported or (shown.metrics if shown else {})
    rows = []
    for name, value in sorted(values.items(), key=lambda pair: pair[0] != facts.metric_for_best):
        note = ""
        if facts.best is not None and name == facts.metric_for_best:
            note = f"best of {units.plural(len(facts.evaluations), 'evaluation')}, at step {facts.best.step:,}"
        label = "validation loss" if name == "loss" else units.printable(name)
        rows.append((label, units.figure(value), note, "bold"))
    return rows


def _speed(facts: TrainingFacts) -> list[Figure]:
    rows = []
    if facts.tokens_per_s:
        padding = f"{100 * facts.padding_waste:.1f} % padding"
        note = _joined(f"{units.short(facts.tokens)} tokens", padding)
        rows.append(("tokens/s", units.count(round(facts.tokens_per_s, 1)), note, ""))
    if facts.mfu is not None:
        peak = f"of {units.flops(facts.peak_flops or 0)} a worker"
        rows.append(("MFU", f"{100 * facts.mfu:.1f} %", _joined(peak, facts.peak_source), ""))
    return rows


def _workers(report: Report, facts: TrainingFacts) -> list[Figure]:
    rows = []
    if facts.world_sizes:
        sizes = [size for size, _ in groupby(facts.world_sizes)][:-1]
        before = " and ".join(units.count(size) for size in sizes[-3:])
        batch = f"{facts.micro_batch_size} examples at once"
        times = f"accumulated {facts.accumulation} times" if facts.accumulation > 1 else ""
        where = _joined(
            units.printable(facts.device), facts.precision, batch, times, f"earlier {before}" if before else ""
        )
        rows.append(("workers", units.count(facts.world_sizes[-1]), where, ""))
    if facts.memory_bytes:
        expected = f"{units.size(facts.expected_bytes)} expected" if facts.expected_bytes else ""
        rows.append(("memory", units.size(facts.memory_bytes), _joined("of a worker at most", expected), ""))
    evaluating = f"{units.duration(facts.evaluating_s)} evaluating" if facts.evaluations else ""
    training = f"{units.duration(facts.training_s)} {report.activity}" if facts.points else ""
    rows.append(("time", units.duration(report.wall_s), _joined(training, evaluating), ""))
    return rows


def _joined(*parts: str) -> str:
    return ", ".join(filter(None, parts))
