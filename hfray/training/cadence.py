"""At which steps a run logs, evaluates and saves, and which evaluation was the best. Knows steps and numbers; not what
is logged, evaluated or saved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from hfray.errors import SpecError
from hfray.training.schedule import RunLength

Every = Literal["no", "steps", "epoch"]

_DEFAULT_STEPS = 500
"""What Transformers does where nothing is said."""
_LOGGED_POINTS = 100
"""Of a run that does not say how often: enough for a curve."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """every: not at all, every so many steps, or whenever an epoch's last example is learned."""

    every: Every
    steps: int = _DEFAULT_STEPS
    first: bool = False
    """Whether the first step is one of them in any case."""
    after: int = 0
    """Not before so many steps."""
    between: int | None = None
    """Beside the ends of epochs every so many steps too."""

    def at(self, step: int, length: RunLength) -> bool:
        if step < self.after:
            return False
        if self.first and step == 1:
            return True
        if self.between and step % self.between == 0:
            return True
        if self.every == "epoch":
            return step in length.epoch_ends()
        return self.every == "steps" and step % self.steps == 0


@dataclass(frozen=True, slots=True)
class Cadence:
    """When what is done. The last step is logged and saved in any case, and evaluated if anything is."""

    log: Rhythm
    evaluate: Rhythm
    save: Rhythm
    evaluate_on_start: bool = False
    keep: int = 2
    """Checkpoints that are kept beside the best one."""
    metric: str = "loss"
    """By which an evaluation is the best: a name without `eval_`."""
    greater_is_better: bool = False
    load_best: bool = False
    """Whether the result is the best checkpoint, not the last one."""

    @classmethod
    def of(cls, trainer: Mapping[str, Any], length: RunLength, *, has_validation: bool) -> Cadence:
        """From TrainingArguments by name. What is not said is Transformers' default, but: evaluations are made every
        epoch where there are rows to evaluate on, checkpoints every epoch and every 500 steps, and logs about a hundred
        times a run.

        Raises SpecError: a strategy that there is not.
        """
        log = _rhythm(
            trainer, "logging", length, "steps", max(1, min(_DEFAULT_STEPS, length.num_steps // _LOGGED_POINTS))
        )
        evaluate = _rhythm(trainer, "eval", length, "epoch" if has_validation else "no", log.steps)
        save = Rhythm("epoch", between=_DEFAULT_STEPS)
        if {"save_strategy", "save_steps"} & trainer.keys():
            save = _rhythm(trainer, "save", length, "steps", _DEFAULT_STEPS)
        metric = str(trainer.get("metric_for_best_model") or "loss").removeprefix("eval_")
        greater = trainer.get("greater_is_better")
        return cls(
            log=replace(log, first=bool(trainer.get("logging_first_step", False))),
            evaluate=replace(evaluate, after=_delay(trainer, evaluate, length)) if has_validation else Rhythm("no"),
            save=save,
            evaluate_on_start=has_validation and bool(trainer.get("eval_on_start", False)),
            keep=int(trainer.get("save_total_limit") or 2),
            metric=metric,
            greater_is_better=not metric.endswith("loss") and metric != "perplexity"
            if greater is None
            else bool(greater),
            load_best=bool(trainer.get("load_best_model_at_end", False)),
        )

    def better(self, value: float, than: float | None, threshold: float = 0.0) -> bool:
        """Whether a metric is the best so far; NaN never is."""
        if not math.isfinite(value):
            return False
        if than is None:
            return True
        return value - than > threshold if self.greater_is_better else than - value > threshold


SETTLED = (
    "logging_strategy", "logging_steps", "logging_first_step", "eval_strategy", "eval_steps", "eval_on_start",
    "eval_delay", "save_strategy", "save_steps", "save_total_limit", "load_best_model_at_end", "metric_for_best_model",
    "greater_is_better",
)  # fmt: skip
"""Training arguments that a cadence stands for."""


def _delay(trainer: Mapping[str, Any], rhythm: Rhythm, length: RunLength) -> int:
    """`eval_delay` in steps: it is said in epochs or in steps, as evaluations are."""
    delay = float(trainer.get("eval_delay") or 0)
    if rhythm.every == "epoch":
        delay = delay * length.num_examples / length.global_batch_size
    return math.ceil(delay)


def _rhythm(trainer: Mapping[str, Any], what: str, length: RunLength, default: Every, default_steps: int) -> Rhythm:
    every = str(trainer.get(f"{what}_strategy", "steps" if f"{what}_steps" in trainer else default))
    if every == "best":  # saved at each evaluation that is the best so far, as is done in any case
        every = "no"
    if every not in ("no", "steps", "epoch"):
        raise SpecError(f"trainer.{what}_strategy: {every!r} is not offered; use steps, epoch or no")
    steps = trainer.get(f"{what}_steps")
    if steps is None or not steps:
        return Rhythm(every, default_steps)  # type: ignore[arg-type]  # checked above
    # Below 1 it is a share of the run, as in Transformers.
    share = float(steps) < 1
    return Rhythm(every, max(1, math.ceil(steps * length.num_steps) if share else int(steps)))  # type: ignore[arg-type]
