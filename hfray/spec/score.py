"""`kind: score`: rows through a model, a result or an error beside each."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from hfray.spec.fields import NAME_PATTERN, misfit, named, operational
from hfray.spec.sections import (
    ContinuousEngineSpec,
    EngineSpec,
    InputSpec,
    MetricsSpec,
    ModelSpec,
    OutputSpec,
    WorkersSpec,
)
from hfray.tasks import TASKS
from hfray.tasks.base import Task, TaskOptions
from hfray.types import Strict

if TYPE_CHECKING:
    AnyTask = TaskOptions
else:  # one member per registered task, told apart by `name`
    _TASKS = reduce(or_, (task.Options for task in TASKS.values()))
    AnyTask = Annotated[Annotated[_TASKS, Field(discriminator="name")], BeforeValidator(named)]


class ScoreJob(Strict):
    """Scores every row of the input with a model."""

    kind: Literal["score"] = "score"
    """What the job does."""
    name: str = operational(..., pattern=NAME_PATTERN)
    """Names reports and logs: lower-case letters, digits, `.`, `_`, `-`."""
    model: ModelSpec
    """Which model."""
    task: AnyTask
    """What the model does to a row: a name, or a section with its options."""
    input: InputSpec
    """Which rows."""
    output: OutputSpec
    """Where the results go."""
    metrics: MetricsSpec | None = operational(None)
    """Optional: score against a reference column."""
    engine: EngineSpec | None = None
    """How the model is run; default: `continuous` where a decoder-only model of a proved architecture generates, else
    `batch`."""
    workers: WorkersSpec = operational(WorkersSpec())
    """On how many CPUs and GPUs."""
    shard_rows: int = Field(default=4096, ge=1)
    """Rows of one shard: the unit of work, of commit and of resume."""
    max_error_rate: float = operational(0.01, ge=0, le=1)
    """Share of rows that may fail; above it the job ends with exit code 3."""
    seed: int = Field(default=0, ge=0)
    """Of sampled text, together with the row's position, and of `input.sample`."""

    @property
    def subject(self) -> str:
        """What it does, in a word."""
        return self.task.name

    @model_validator(mode="after")
    def _check_engine(self) -> ScoreJob:
        task = TASKS[self.task.name]
        if isinstance(self.engine, ContinuousEngineSpec) and not task.generates_causally():
            what = "computes no text" if task.mode == "forward" else "is for encoder-decoders"
            problem = f"continuous generates with decoder-only models, and task {self.task.name} {what}; use batch"
            raise misfit("engine.name", problem)
        return self

    @model_validator(mode="after")
    def _check_batch(self) -> ScoreJob:
        if self.input.format == "openai-batch":
            if self.task.name not in ("text-generation", "feature-extraction"):
                problem = f"openai-batch holds chats, prompts and texts to embed, nothing for task {self.task.name}"
                raise misfit("input.format", problem)
            if self.metrics is not None:
                raise misfit("metrics", "the answers to a batch file are responses, which no metric reads; remove this")
        return self

    @model_validator(mode="after")
    def _check_metrics(self) -> ScoreJob:
        if self.metrics is None:
            return self
        task = TASKS[self.task.name]
        if task.metrics is Task.metrics:
            raise misfit("metrics", f"task {task.name} has no metrics; remove this section")
        if task.needs_references and self.metrics.label is None:
            raise misfit("metrics.label", "missing: the column that results are compared with")
        if not task.needs_references and self.metrics.label is not None:
            raise misfit("metrics.label", f"task {task.name} compares with nothing; write `metrics: {{}}`")
        return self
