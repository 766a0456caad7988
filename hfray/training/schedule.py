"""How long a run is and which learning rate each sample has. Knows counts; not workers, so that it is the same for any
number of them.

A run's length is counted in samples and its steps all have `global_batch_size` of them (`order`): the last step of the
run goes on into the epoch after the last, so that every example is learned at least as often as was asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from hfray.errors import SpecError
from hfray.spec.problems import close_or_known


@dataclass(frozen=True, slots=True)
class RunLength:
    """From the first sample to the last."""

    num_examples: int
    global_batch_size: int
    num_steps: int
    """Optimizer steps."""

    @classmethod
    def of(cls, num_examples: int, global_batch_size: int, epochs: float, max_steps: int = -1) -> RunLength:
        """epochs: as it is written (0.7 is seven tenths); max_steps: above 0 it counts, in place of epochs."""
        if num_examples < 1:
            raise SpecError("input.train: there are no examples to learn")
        if max_steps <= 0 and epochs <= 0:
            raise SpecError(f"trainer.num_train_epochs: must be above 0, not {epochs:g}")
        samples = Fraction(str(epochs)) * num_examples
        steps = max_steps if max_steps > 0 else math.ceil(samples / global_batch_size)
        return cls(num_examples, global_batch_size, steps)

    @property
    def stop(self) -> int:
        """The samples of the whole run."""
        return self.num_steps * self.global_batch_size

    def epoch_of(self, samples: int) -> float:
        """How often the examples were learned after so many samples."""
        return samples / self.num_examples

    def epoch_ends(self) -> tuple[int, ...]:
        """The steps after which an epoch's last example is learned, and the last step of the run: when to evaluate and
        save once an epoch. Ascending; several short epochs may end in one step."""
        num_epochs = self.stop // self.num_examples
        ends = {-(-(epoch + 1) * self.num_examples // self.global_batch_size) for epoch in range(num_epochs)}
        return tuple(sorted({*ends, self.num_steps}))


@dataclass(frozen=True)
class Schedule:
    """The learning rate over a run: one of Transformers' schedules by its name, as `TrainingArguments` take it."""

    name: str
    learning_rate: float
    length: RunLength
    warmup: float = 0
    """Steps, or below 1 a share of the run (`TrainingArguments.warmup_steps`)."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """`TrainingArguments.lr_scheduler_kwargs`."""

    @property
    def warmup_steps(self) -> int:
        return int(self.warmup) if self.warmup >= 1 else math.ceil(self.length.num_steps * self.warmup)

    def make(self, optimizer: Any) -> Any:
        """The torch scheduler of an optimizer, stepped once an optimizer step. Raises SpecError: no such schedule, or
        options that it does not take."""
        from transformers import get_scheduler
        from transformers.trainer_utils import SchedulerType

        known = [each.value for each in SchedulerType]
        if self.name not in known:
            raise SpecError(
                f"trainer.lr_scheduler_type: unknown schedule {self.name!r}{close_or_known(self.name, known)}"
            )
        try:
            return get_scheduler(
                self.name,
                optimizer,
                num_warmup_steps=self.warmup_steps,
                num_training_steps=self.length.num_steps,
                scheduler_specific_kwargs=dict(self.options),
            )
        except (TypeError, ValueError) as error:
            raise SpecError(f"trainer.lr_scheduler_kwargs: {self.name} does not take them: {error}") from error
