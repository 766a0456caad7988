"""How far a training run is: what a checkpoint remembers beside tensors. Plain values; knows no tensors, no files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hfray.training.counting import Counts
from hfray.training.facts import MAX_POINTS, Evaluation, Point, few_evaluations, few_points


@dataclass(slots=True)
class Position:
    """Counts are sums over all sessions."""

    step: int = 0
    """Optimizer steps done."""
    seconds: float = 0.0
    """Of training, evaluations and checkpoints apart."""
    counts: Counts = field(default_factory=Counts)
    """Over all ranks."""
    best: float | None = None
    """The best evaluation's metric so far."""
    best_step: int | None = None
    worse: int = 0
    """Evaluations in a row that were no better."""
    stopped: bool = False
    """Whether the run has ended before its last step."""
    points: list[Point] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    scheduler: dict[str, Any] = field(default_factory=dict)
    """The state of the learning-rate scheduler."""
    world_sizes: list[int] = field(default_factory=list)
    """Of the sessions, in order."""
    resumed_from: list[int] = field(default_factory=list)
    """Steps at which the later ones went on."""

    def add_point(self, point: Point) -> None:
        """Of many points so many are left as a report shows: each checkpoint holds them."""
        self.points.append(point)
        if len(self.points) > 2 * MAX_POINTS:
            self.points = list(few_points(self.points))

    def add_evaluation(self, evaluation: Evaluation, metric: str) -> None:
        """metric: that decides on the best one, which stays."""
        self.evaluations.append(evaluation)
        if len(self.evaluations) > 2 * MAX_POINTS:
            self.evaluations = list(few_evaluations(self.evaluations, metric, self.best_step))

    def as_record(self) -> dict[str, Any]:
        """Plain JSON."""
        record = {name: getattr(self, name) for name in self.__slots__}
        return record | {name: [each.model_dump() for each in record[name]] for name in ("points", "evaluations")}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Position:
        counts = Counts(*record["counts"])
        points = [Point.model_validate(each) for each in record["points"]]
        evaluations = [Evaluation.model_validate(each) for each in record["evaluations"]]
        return cls(**{**record, "counts": counts, "points": points, "evaluations": evaluations})
