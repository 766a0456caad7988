"""Transformers' `Trainer`, with hfray's order of samples, its position in it, and its own checkpoints and evaluations.

What a step does (loss, gradients, optimizer, activation checkpointing, trackers) is the Trainer's. Steps are those of
the whole run, whatever session they are done in: a session reads its own micro-batches from where the last checkpoint
stopped. Knows tensors and steps; not Ray, not files.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from transformers import Trainer, TrainerCallback, TrainingArguments

from hfray.errors import EngineError, SpecError
from hfray.spec.train import EarlyStoppingSpec
from hfray.training.cadence import Cadence
from hfray.training.counting import Count, Counts
from hfray.training.facts import Evaluation, Point
from hfray.training.failures import CALMER
from hfray.training.items import num_items, shifts_labels
from hfray.training.memory_use import peak_memory_bytes
from hfray.training.position import Position
from hfray.training.schedule import Schedule
from hfray.training.surroundings import Surroundings


class RunTrainer(Trainer):  # type: ignore[misc]
    """One rank's trainer. `position` is complete after `train`."""

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        *,
        schedule: Schedule,
        cadence: Cadence,
        loader: Callable[[int], Any],
        count: Count,
        surroundings: Surroundings,
        position: Position,
        early_stopping: EarlyStoppingSpec | None = None,
    ) -> None:
        """loader: this rank's micro-batches from a sample of the run's stream on; count: of one of them, its tokens."""
        super().__init__(model=model, args=args, callbacks=[_Flow(self)])
        # The Trainer would scale losses for those models only that say they heed its count (`items`).
        self.model_accepts_loss_kwargs = False
        self.loss_is_scaled_for_ga = True
        self._shifted = shifts_labels(model)
        self._items: deque[int] = deque()
        """Of the micro-batches that are to come in this optimizer step."""
        self._num_items = torch.ones((), dtype=torch.int64, device=args.device)
        """Of the optimizer step, over all ranks. On the device: to look at it would wait for what is computed there."""
        self.position = position
        self.schedule = schedule
        self._cadence = cadence
        self._loader = loader
        self._surroundings = surroundings
        self._early_stopping = early_stopping
        self._count = count
        self._counted = torch.zeros(len(Counts._fields), dtype=torch.int64)
        """`Counts` of this rank that `position` does not have yet."""
        self._bad_step = torch.tensor(sys.maxsize, device=args.device)
        """The first step whose loss was not finite; looked at only when something is logged or saved."""
        self._since = time.perf_counter()
        """When the seconds that `position` does not have yet began."""
        self._last_loss: float | None = None

    # -- where the run stands

    @property
    def samples(self) -> int:
        """Learned so far."""
        return self.position.step * self.schedule.length.global_batch_size

    def get_train_dataloader(self) -> Any:
        # Accelerate would deal the batches out once more: they are not shown to it.
        return self._loader(self.schedule.length.stop if self.position.stopped else self.samples)

    def set_initial_training_values(self, args: TrainingArguments, dataloader: Any) -> tuple[Any, ...]:
        length = self.schedule.length
        micro_batches = len(dataloader)
        steps = micro_batches // args.gradient_accumulation_steps
        # One "epoch": what is left of the run.
        return 1, steps, length.num_examples, length.stop, length.global_batch_size, micro_batches, length.num_steps

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        result: tuple[int, int] = super()._init_training_state(*args, **kwargs)
        self.state.global_step = self.position.step
        self.state.epoch = self.schedule.length.epoch_of(self.samples)
        return result

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.lr_scheduler is None:
            self.lr_scheduler: Any = self.schedule.make(optimizer or self.optimizer)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: Any) -> Any:
        model, _ = super()._prepare_for_training(max_steps, train_dataloader, None)
        reduce_sparingly(self.model_wrapped, self.args.world_size)
        self._surroundings.restore(self)
        if self.position.scheduler and self.lr_scheduler is not None:
            self.lr_scheduler.load_state_dict(self.position.scheduler)
        return model, train_dataloader

    def train_begun(self) -> None:
        """Called once all is in place."""
        if self._cadence.evaluate_on_start and not self.position.step:
            self.evaluate()
        self._since = time.perf_counter()

    # -- a step

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # it would walk through all modules for every micro-batch; `training.flops` counts once

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: Any) -> Any:
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        for batch in batches:
            self._counted += torch.tensor(self._count(batch))
            self._items.append(num_items(batch, shifted=self._shifted))
        counted = torch.tensor(sum(self._items), device=device)
        if dist.is_initialized():
            dist.all_reduce(counted)
        self._num_items = counted.clamp(min=1)
        return batches, None

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        """This micro-batch's part of the mean over all items of the optimizer step. Ranks are averaged later."""
        own_items = self._items.popleft()
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
        if own_items:
            loss = loss * (own_items * self.args.world_size / self._num_items)
        else:  # the mean of nothing is not a number, nor is its gradient; this one is zero
            loss = outputs["logits"].float().sum() * 0.0
        return (loss, outputs) if return_outputs else loss

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        # A look at the value would wait for the device at every step.
        bad = ~torch.isfinite(loss)
        self._bad_step = torch.where(bad, torch.clamp(self._bad_step, max=self.state.global_step + 1), self._bad_step)
        return loss

    def step_ended(self) -> None:
        """Called after each optimizer step, before it is logged, evaluated or saved."""
        length, step = self.schedule.length, self.state.global_step
        self.position.step = step
        self.state.epoch = length.epoch_of(self.samples)
        last = step >= length.num_steps
        self.control.should_log = last or self._cadence.log.at(step, length)
        self.control.should_evaluate = self._cadence.evaluate.every != "no" and (
            last or self._cadence.evaluate.at(step, length)
        )
        self.control.should_save = last or self._cadence.save.at(step, length)
        # A logged loss is the mean since the last one: none of them may span a checkpoint, after which a resumed run
        # would know a part of it only.
        self.control.should_log |= self.control.should_evaluate or self.control.should_save
        if self.control.should_log or self.control.should_save:
            self._refuse_bad_loss()
        if self.is_world_process_zero():
            self._surroundings.tick(self.position, self._last_loss)

    def _refuse_bad_loss(self) -> None:
        """Raises EngineError on all ranks if the loss of one was not finite."""
        bad = self._bad_step.clone()
        if dist.is_initialized():
            dist.all_reduce(bad, op=dist.ReduceOp.MIN)
        step = int(bad)
        if step < sys.maxsize:
            raise EngineError(
                f"the loss of step {step:,} is not a finite number, and nothing that follows could be; {CALMER}"
                + ("; bf16 instead of fp16 has a wider range" if self.args.fp16 else "")
            )

    # -- what is logged

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            self._last_loss = logs["loss"]
            self._sum_up()
            self.position.add_point(
                Point(
                    step=self.position.step,
                    samples=self.samples,
                    epoch=self.schedule.length.epoch_of(self.samples),
                    loss=logs["loss"],
                    learning_rate=logs.get("learning_rate"),
                    grad_norm=logs.get("grad_norm"),
                    seconds=self.position.seconds,
                    tokens=self.position.counts.tokens,
                    padded_tokens=self.position.counts.padded_tokens,
                    memory_bytes=self._memory_bytes(),
                )
            )
            logs["tokens"] = self.position.counts.tokens
        super().log(logs, start_time)

    def _sum_up(self) -> None:
        """Adds what all ranks have counted since."""
        counted = self._counted.to(self.args.device, copy=True)
        if dist.is_initialized():
            dist.all_reduce(counted)
        self._counted.zero_()
        before = self.position.counts
        self.position.counts = Counts(*(one + more for one, more in zip(before, counted.tolist(), strict=True)))
        now = time.perf_counter()
        self.position.seconds += now - self._since
        self._since = now

    def _memory_bytes(self) -> int:
        peak = torch.tensor(peak_memory_bytes(), dtype=torch.int64, device=self.args.device)
        if dist.is_initialized():
            dist.all_reduce(peak, op=dist.ReduceOp.MAX)
        return int(peak)

    # -- evaluations and checkpoints

    @contextlib.contextmanager
    def _paused(self) -> Iterator[None]:
        """What is done meanwhile is no training."""
        self._sum_up()
        yield
        self._since = time.perf_counter()

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        with self._paused():
            started = time.perf_counter()
            metrics = self._surroundings.evaluate(self)
            evaluation = Evaluation(
                step=self.position.step,
                epoch=self.schedule.length.epoch_of(self.samples),
                seconds=time.perf_counter() - started,
                metrics=metrics,
            )
            self.position.add_evaluation(evaluation, self._cadence.metric)
            prefixed = {f"eval_{name}": value for name, value in metrics.items()}
            self.log(dict(prefixed))
            self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, prefixed)
        return prefixed

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        value = metrics.get(f"eval_{self._cadence.metric}")
        if value is None:
            known = ", ".join(name.removeprefix("eval_") for name in metrics)
            raise SpecError(
                f"trainer.metric_for_best_model: evaluations have no {self._cadence.metric}; they have {known}"
            )
        threshold = self._early_stopping.threshold if self._early_stopping else 0.0
        counts = self._cadence.better(value, self.position.best, threshold)
        is_best = self._cadence.better(value, self.position.best)
        self.position.worse = 0 if counts else self.position.worse + 1
        if is_best:
            self.position.best, self.position.best_step = value, self.position.step
            self.control.should_save = True
        if self._early_stopping is not None and self.position.worse >= self._early_stopping.patience:
            self.position.stopped = True
            self.control.should_training_stop = True
            self.control.should_save = True
        return is_best

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self._refuse_bad_loss()
        with self._paused():
            self.position.scheduler = dict(self.lr_scheduler.state_dict()) if self.lr_scheduler is not None else {}
            self._surroundings.save(self)


class _Flow(TrainerCallback):  # type: ignore[misc]
    """Tells a trainer what happens, after Transformers' own callback has had its say."""

    def __init__(self, trainer: RunTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer.train_begun()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer.step_ended()


def reduce_sparingly(engine: Any, world_size: int) -> None:
    """Without ZeRO, DeepSpeed copies all gradients into one tensor and back to add up those of the ranks, whatever
    `reduce_bucket_size` says. Here the size holds: memory has no second copy of them all, and a bucket's copies stay in
    the cache. One rank has nobody to agree with; left out, a step of a small model takes 7 % less."""
    if world_size > 1:
        engine.allreduce_gradients = partial(engine.allreduce_gradients, engine.zero_reduce_bucket_size())
    elif isinstance(engine.optimizer, torch.optim.Optimizer):  # ZeRO's own keep count of reductions
        engine.enable_backward_allreduce = False
