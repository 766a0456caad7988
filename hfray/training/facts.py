"""What is left of a training run to be read: its steps, its evaluations, and what follows from them. Knows plain values
only; not where they were measured, nor how they are shown.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationInfo, computed_field, field_validator, model_validator

from hfray.types import Number, Strict, Word

MAX_POINTS = 500
"""Of the logged steps, and of the evaluations, that are kept."""


class Point(Strict):
    """One logged step. Counts and seconds are sums since the run's first step, over all its sessions."""

    step: int
    """Optimizer steps done."""
    samples: int
    """Examples learned."""
    epoch: float
    loss: Number = None
    """Mean over the steps since the point before; null if it was not finite."""
    learning_rate: Number = None
    grad_norm: Number = None
    """Before clipping."""
    seconds: float
    """Of training; evaluation and saving apart."""
    tokens: int
    """Model positions without padding, of all workers."""
    padded_tokens: int
    """Model positions computed, padding included."""
    memory_bytes: int
    """Largest peak of a worker so far: device memory on a GPU, resident memory on a CPU."""


class Evaluation(Strict):
    """One evaluation during the run."""

    step: int
    epoch: float
    seconds: float
    """That it took."""
    metrics: dict[str, Number]
    """"loss", "perplexity", and the task's metrics, by name without prefix."""


class TrainingFacts(Strict):
    """A training run as its report tells it.

    A step that was logged twice, before a failure and after it, counts as it was done last. Of very many points at
    most `MAX_POINTS` are kept, as they were logged: the first, the last, and of equal stretches between them the one
    with the lowest and the one with the highest loss, so that a spike stays in sight. Evaluations alike, by the metric
    that decides on the best one; the best one stays.
    """

    method: str
    """full, lora, qlora."""
    parameters: int
    trainable: int
    num_examples: int
    num_steps: int
    """Of the whole run."""
    step: int
    """That was reached."""
    global_batch_size: int
    micro_batch_size: int
    accumulation: int
    world_sizes: tuple[int, ...]
    """Workers of each session, in order. The first begins at step 0, each later one at its entry of `resumed_from`."""
    resumed_from: tuple[int, ...] = ()
    """Steps at which later sessions went on."""
    failures: int = 0
    """Of worker groups, that a new group went on from."""
    precision: str
    device: Word
    """Of one worker."""
    deepspeed: Word
    """Why this ZeRO stage, and the memory that it was expected to take; one line."""
    expected_bytes: int | None = None
    """Memory of one worker, as estimated before the run."""
    flops_per_token: float
    """Floating-point operations of learning one position (`training.flops`)."""
    peak_flops: Number = None
    """Floating-point operations per second that one worker's device can do (`training.peak`)."""
    peak_source: str = ""
    """Where that is from: published, measured."""
    metric_for_best: str | None = None
    """By name without prefix."""
    best_step: int | None = None
    """Of the checkpoint that was kept as the best."""
    points: tuple[Point, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()

    @field_validator("points")
    @classmethod
    def _few_points(cls, points: tuple[Point, ...]) -> tuple[Point, ...]:
        return few_points(_as_done_last(points))

    @field_validator("evaluations")
    @classmethod
    def _few_evaluations(cls, evaluations: tuple[Evaluation, ...], info: ValidationInfo) -> tuple[Evaluation, ...]:
        name, best_step = info.data.get("metric_for_best") or "loss", info.data.get("best_step")
        return few_evaluations(_as_done_last(evaluations), name, best_step)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def training_s(self) -> float:
        """Of all sessions, without evaluation and saving."""
        return self.points[-1].seconds if self.points else 0.0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def epochs(self) -> float:
        """That were reached."""
        return self.points[-1].epoch if self.points else 0.0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def tokens(self) -> int:
        """Positions learned, padding apart."""
        return self.points[-1].tokens if self.points else 0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def padding_waste(self) -> float:
        """Share of the computed positions that were padding."""
        padded = self.points[-1].padded_tokens if self.points else 0
        return max(0.0, 1 - self.tokens / padded) if padded else 0.0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def tokens_per_s(self) -> float:
        """Positions without padding, of all workers, over `training_s`."""
        return self.tokens / self.training_s if self.training_s else 0.0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def samples_per_s(self) -> float:
        """Examples learned, by all workers, over `training_s`."""
        return self.points[-1].samples / self.training_s if self.training_s else 0.0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilisation (Chowdhery et al. 2022, arXiv:2204.02311, appendix B): of what the workers' devices
        could have computed in the time, the share that the learned positions need. Padding, activations computed again
        and communication are no use; None where the peak is not known."""
        available = self.worker_s * (self.peak_flops or 0.0)
        return self.tokens * self.flops_per_token / available if available else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def first_loss(self) -> float | None:
        return self.points[0].loss if self.points else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def final_loss(self) -> float | None:
        """None if it was not finite."""
        return self.points[-1].loss if self.points else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def best_value(self) -> float | None:
        """Of `metric_for_best`, at `best_step`."""
        return self.best.metrics.get(self.metric_for_best or "loss") if self.best else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def memory_bytes(self) -> int:
        """Largest peak of a worker."""
        return max((point.memory_bytes for point in self.points), default=0)

    @property
    def best(self) -> Evaluation | None:
        """The evaluation at `best_step`."""
        return next((each for each in self.evaluations if each.step == self.best_step), None)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Of the evaluations, `metric_for_best` first, the others in the order in which they were found."""
        names = dict.fromkeys(name for each in self.evaluations for name in each.metrics)
        return tuple(sorted(names, key=lambda name: name != self.metric_for_best))

    @property
    def evaluating_s(self) -> float:
        """Of the evaluations that are kept."""
        return sum(each.seconds for each in self.evaluations)

    @property
    def worker_s(self) -> float:
        """Training seconds times workers, over the sessions."""
        starts = (0, *self.resumed_from)[: len(self.world_sizes)]
        ends = (*starts[1:], None)
        sessions = zip(self.world_sizes, starts, ends, strict=False)
        return sum(
            world_size * ((self.training_s if end is None else self._seconds_at(end)) - self._seconds_at(start))
            for world_size, start, end in sessions
        )

    def _seconds_at(self, step: int) -> float:
        """Training seconds when a step was done; on a line between logged steps."""
        steps = [0, *(point.step for point in self.points)]
        seconds = [0.0, *(point.seconds for point in self.points)]
        after = bisect_left(steps, step)
        if after == len(steps):
            return seconds[-1]
        if steps[after] == step:
            return seconds[after]
        share = (step - steps[after - 1]) / (steps[after] - steps[after - 1])
        return seconds[after - 1] + share * (seconds[after] - seconds[after - 1])

    @model_validator(mode="before")
    @classmethod
    def _without_computed(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        return {key: value for key, value in data.items() if key not in cls.model_computed_fields}


def few_points(points: Sequence[Point]) -> tuple[Point, ...]:
    """At most `MAX_POINTS` of them, as `TrainingFacts` says."""
    return _thinned(points, lambda point: point.loss)


def few_evaluations(evaluations: Sequence[Evaluation], metric: str, best_step: int | None) -> tuple[Evaluation, ...]:
    """At most `MAX_POINTS` of them, as `TrainingFacts` says."""
    return _thinned(evaluations, lambda each: each.metrics.get(metric), lambda each: each.step == best_step)


Logged = TypeVar("Logged", Point, Evaluation)


def _as_done_last(logged: Sequence[Logged]) -> tuple[Logged, ...]:
    """In the order of their steps. What a session logs replaces what was logged from that step on before it."""
    kept: list[Logged] = []
    for each in logged:
        while kept and kept[-1].step >= each.step:
            kept.pop()
        kept.append(each)
    return tuple(kept)


def _thinned(
    logged: Sequence[Logged],
    value: Callable[[Logged], float | None],
    stays: Callable[[Logged], bool] = lambda _: False,
) -> tuple[Logged, ...]:
    """At most `MAX_POINTS`. A value that is missing counts as the highest: it was not finite."""
    if len(logged) <= MAX_POINTS:
        return tuple(logged)

    def height(index: int) -> float:
        found = value(logged[index])
        return float("inf") if found is None else found

    inner, stretches = len(logged) - 2, (MAX_POINTS - 3) // 2
    chosen = {0, len(logged) - 1, *(index for index, each in enumerate(logged) if stays(each))}
    for number in range(stretches):
        stretch = range(1 + number * inner // stretches, 1 + (number + 1) * inner // stretches)
        chosen |= {min(stretch, key=height), max(reversed(stretch), key=height)}  # of equal ones the first and the last
    return tuple(logged[index] for index in sorted(chosen))
