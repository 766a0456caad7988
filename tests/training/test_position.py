"""What a checkpoint remembers of a run survives JSON, whole."""

from __future__ import annotations

import json
import math
from dataclasses import fields

from hfray.training.counting import Counts
from hfray.training.facts import MAX_POINTS, Evaluation, Point
from hfray.training.position import Position


def test_a_position_survives_json() -> None:
    position = Position(
        step=7,
        seconds=1.25,
        counts=Counts(10, 12, 30, 4, 8),
        best=0.5,
        best_step=4,
        worse=2,
        stopped=True,
        points=[
            Point(step=7, samples=56, epoch=0.5, loss=0.1, seconds=1.25, tokens=10, padded_tokens=12, memory_bytes=3)
        ],
        evaluations=[Evaluation(step=4, epoch=0.2, seconds=0.5, metrics={"loss": 0.5})],
        scheduler={"last_epoch": 7, "_last_lr": [1e-4], "best": math.inf},
        world_sizes=[2, 1],
        resumed_from=[3],
    )
    assert all(getattr(position, each.name) != getattr(Position(), each.name) for each in fields(Position))
    assert Position.from_record(json.loads(json.dumps(position.as_record()))) == position


def test_a_long_run_is_remembered_by_few_points() -> None:
    position, best = Position(), 777
    for step in range(1, 5001):
        loss = 9.0 if step == 1234 else 1 / step
        position.add_point(
            Point(step=step, samples=step, epoch=0, loss=loss, seconds=step, tokens=1, padded_tokens=1, memory_bytes=1)
        )
        metrics = {"loss": 0.0, "f1": 1.0 if step == best else 0.5 - step % 7 / 100}
        position.add_evaluation(Evaluation(step=step, epoch=0, seconds=1, metrics=metrics), "f1")
        if step == best:
            position.best_step = best
    for kept in (position.points, position.evaluations):
        assert MAX_POINTS / 2 < len(kept) <= 2 * MAX_POINTS
        steps = [each.step for each in kept]
        assert steps == sorted(set(steps))
        assert (steps[0], steps[-1]) == (1, 5000)
    assert 1234 in [point.step for point in position.points]  # a spike stays in sight
    assert best in [each.step for each in position.evaluations]
