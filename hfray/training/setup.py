"""What a training worker is given: everything that was settled before it started. Plain, picklable values; knows
nothing of how they are used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hfray.data.ledger import Ledger
from hfray.data.plan import Plan
from hfray.data.selection import RowReader
from hfray.models.packed_attention import Separation
from hfray.models.result import ResultFacts
from hfray.models.source import ModelSource
from hfray.models.targets import Targets
from hfray.models.trainable import Head, Vocabulary
from hfray.spec.methods import MethodSpec
from hfray.spec.train import BaseModelSpec, EarlyStoppingSpec
from hfray.tasks.base import TaskOptions
from hfray.training.batches import Collator
from hfray.training.cadence import Cadence
from hfray.training.memory import Precision
from hfray.training.schedule import Schedule
from hfray.training.secret import SecretKey


@dataclass(frozen=True, slots=True)
class Examples:
    """One split of a tokenised folder, and what makes batches of it."""

    path: str
    split: str
    collator: Collator
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ValidationRows:
    """Raw rows that the task's own metrics are computed on. reference: the column of what should come out."""

    plan: Plan
    reader: RowReader
    columns: tuple[str, ...]
    reference: str


@dataclass(frozen=True, slots=True)
class ModelSetup:
    """Which model is trained, and how."""

    spec: BaseModelSpec
    source: ModelSource | None
    """Of the weights or the configuration; None for a model that is only described."""
    tokenizer: ModelSource
    head: Head
    vocabulary: Vocabulary
    method: MethodSpec
    precision: Precision
    targets: Targets | None = None
    """Where an adapter goes."""
    separation: Separation | None = None
    """What keeps packed documents apart."""


@dataclass(frozen=True, slots=True)
class TrainSetup:
    """One training run."""

    name: str
    ledger: Ledger
    """Of the job's output folder, which all workers see. Checkpoints of another fingerprint are never continued."""
    facts: ResultFacts
    """What is known of the result beforehand."""
    model: ModelSetup
    task: TaskOptions
    examples: Examples
    validation: Examples | None
    rows: ValidationRows | None
    schedule: Schedule
    """With the length of the run, which counts samples."""
    micro_batch_size: int
    trainer: Mapping[str, Any]
    """TrainingArguments by name, checked; those that `cadence` stands for are not among them."""
    deepspeed: Mapping[int, Mapping[str, Any]]
    """DeepSpeed's configuration for each number of workers that the run may have."""
    cadence: Cadence
    early_stopping: EarlyStoppingSpec | None
    seed: int
    gpus: float
    """Of one worker."""
    threads: int
    """Of one worker's torch."""
    checkpoint_key: SecretKey
    """Seals checkpoints (`training.manifest`)."""

    @property
    def on_gpu(self) -> bool:
        return self.gpus > 0
