"""Whether a training job's numbers agree: workers, batch, length, schedule. Knows fields and training arguments; no
model, no file and no data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hfray.errors import SpecError
from hfray.spec.train import TrainJob
from hfray.training.accumulation import accumulation, world_sizes
from hfray.training.cadence import Cadence
from hfray.training.deepspeed import BatchShape
from hfray.training.schedule import RunLength, Schedule

NUM_EPOCHS = 3.0
LEARNING_RATE = 5e-5
"""What Transformers trains with where nothing is said."""
_MANY_EXAMPLES = 1_000_000
"""Of a run whose examples are not counted yet."""


def world_sizes_of(job: TrainJob) -> tuple[tuple[int, ...], str]:
    """Numbers of workers, and a note. Raises SpecError where not even the least number of workers can share the global
    batch, or a GPU."""
    micro, least = job.micro_batch_size, job.workers.min
    most = job.workers.max or least
    gpus = job.workers.gpus
    if gpus > 1:
        raise SpecError(f"workers.gpus: {gpus:g}; a training worker uses one GPU: write 1, and more workers")
    if 0 < gpus < 1 and most > 1:
        raise SpecError(
            f"workers.gpus: {gpus:g}; workers that train together cannot share a GPU (nccl does not let them); write 1 "
            "or take one worker"
        )
    sizes = world_sizes(job.global_batch_size, micro, least, most)
    if not sizes or sizes[0] != least:
        accumulation(job.global_batch_size, micro, least)
    # Ray Train starts any number of workers in a range, as many as there is room for.
    reached = tuple(size for number, size in enumerate(sizes) if size == least + number)
    if reached[-1] == most:
        return reached, ""
    taken = f"{least} to {reached[-1]}" if len(reached) > 1 else f"{least} throughout"
    further = [str(size) for size in sizes if size not in reached]
    other = f" ({' and '.join(further)} can: workers.min starts with more)" if further else ""
    return reached, (
        f"workers.max: {most} is not reached, the run takes {taken}: {reached[-1] + 1} workers cannot share "
        f"global_batch_size {job.global_batch_size} with trainer.per_device_train_batch_size {micro}{other}"
    )


def batch_shape(job: TrainJob, world_size: int) -> BatchShape:
    """Raises SpecError where so many workers cannot share the global batch."""
    global_batch_size, micro = job.global_batch_size, job.micro_batch_size
    return BatchShape(global_batch_size, micro, accumulation(global_batch_size, micro, world_size))


def length_of(job: TrainJob, trainer: Mapping[str, Any], num_examples: int) -> RunLength:
    """Raises SpecError for a run of no steps."""
    epochs, max_steps = float(trainer.get("num_train_epochs", NUM_EPOCHS)), int(trainer.get("max_steps", -1))
    return RunLength.of(num_examples, job.global_batch_size, epochs, max_steps)


def schedule_of(trainer: Mapping[str, Any], length: RunLength) -> Schedule:
    """trainer: with what the author's own DeepSpeed configuration decides."""
    return Schedule(
        str(trainer.get("lr_scheduler_type", "linear")),
        float(trainer.get("learning_rate", LEARNING_RATE)),
        length,
        float(trainer.get("warmup_steps", 0) or 0),
        trainer.get("lr_scheduler_kwargs") or {},
    )


def check_run(job: TrainJob, trainer: Mapping[str, Any]) -> None:
    """trainer: with what the author's own DeepSpeed configuration decides. Raises SpecError: a run of no steps, a
    cadence that there is not, a schedule with options that it does not take."""
    import torch

    length = length_of(job, trainer, _MANY_EXAMPLES)
    Cadence.of(trainer, length, has_validation=job.input.validation is not None)
    schedule = schedule_of(trainer, length)
    if schedule.learning_rate < 0:
        raise SpecError(f"trainer.learning_rate: must not be below 0, and is {schedule.learning_rate:g}")
    schedule.make(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=schedule.learning_rate))
