"""A training run as its report tells it, for the tests of what shows it."""

from __future__ import annotations

from typing import Any

from hfray.inference.totals import Totals
from hfray.kinds.report import ModelFacts, Report, Session
from hfray.training.facts import Evaluation, TrainingFacts
from tests.training.test_facts import make_facts, make_point

EARLIER = (Session(started_at=500.0, wall_s=20.0, rows=80, workers=1, status="interrupted"),)


def make_run(num_points: int = 20, **facts: Any) -> TrainingFacts:
    """200 steps whose loss falls from 4 to 1, two evaluations, resumed at step 80 with one worker more."""
    stride = 200 // num_points
    points = [make_point(step, 4 - 3 * step / 200) for step in range(stride, 201, stride)]
    evaluations = (
        Evaluation(step=100, epoch=1.0, seconds=3.0, metrics={"loss": 2.5, "accuracy": 0.75, "macro_f1": 0.5}),
        Evaluation(step=200, epoch=2.0, seconds=3.0, metrics={"loss": 1.25, "accuracy": 0.6875, "macro_f1": 0.625}),
    )
    known: dict[str, Any] = {
        "world_sizes": (1, 2), "resumed_from": (80,), "failures": 1, "peak_source": "measured",
        "evaluations": evaluations, "metric_for_best": "accuracy", "best_step": 100,
    }  # fmt: skip
    return make_facts(points, **(known | facts))


def make_training_report(training: TrainingFacts, **facts: Any) -> Report:
    known: dict[str, Any] = {
        "name": "banking-lora", "kind": "train", "task": "text-classification", "started_at": 990.0, "wall_s": 130.0,
        "model": ModelFacts(path="org/model", parameters=22_000_000), "output": "out/banking-lora",
        "log": "out/logs/run.log", "job": "jobs/banking-lora.yaml", "metrics": {"loss": 2.5, "accuracy": 0.75},
    }  # fmt: skip
    return Report.of(Totals(), earlier=EARLIER, first_step=80, training=training, **(known | facts))
