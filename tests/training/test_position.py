"""What a checkpoint remembers of a run survives JSON, whole."""

from __future__ import annotations

import json
import math
from dataclasses import fields

from hfray.training.counting import Counts
from hfray.training.facts import Evaluation, Point
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
