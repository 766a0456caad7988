"""Transformers' `TrainingArguments` of one rank: the job's words, and what hfray decides. Knows names and values."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from hfray.errors import SpecError
from hfray.training.accumulation import accumulation
from hfray.training.setup import TrainSetup


def training_arguments(setup: TrainSetup, world_size: int, folder: Path) -> Any:
    """folder: where the Trainer may write, of no lasting use. Raises SpecError for a number of workers that the run
    was not planned for, and for what Transformers refuses: all workers would refuse it again."""
    from transformers import TrainingArguments

    length = setup.schedule.length
    if world_size not in setup.deepspeed:
        raise SpecError(f"{world_size} workers cannot share global_batch_size {length.global_batch_size}")
    own = {
        "output_dir": str(folder),
        "deepspeed": dict(setup.deepspeed[world_size]),
        "max_steps": length.num_steps,
        "per_device_train_batch_size": setup.micro_batch_size,
        "gradient_accumulation_steps": accumulation(length.global_batch_size, setup.micro_batch_size, world_size),
        "seed": setup.seed,
        "data_seed": setup.seed,
        "use_cpu": not setup.on_gpu,
        "bf16": setup.model.precision == "bf16",
        "fp16": setup.model.precision == "fp16",
        # hfray's own cadence, order of samples and checkpoints stand in for these.
        "logging_strategy": "no",
        "eval_strategy": "no",
        "save_strategy": "no",
        "ignore_data_skip": True,
        "remove_unused_columns": False,
        "average_tokens_across_devices": True,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "report_to": trackers(setup.trainer.get("report_to")),
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is deprecated.*")
        try:
            return TrainingArguments(**({**setup.trainer, **own}))
        except (ValueError, TypeError, ImportError, NotImplementedError) as error:
            raise SpecError(f"trainer: Transformers refuses these arguments: {error}") from error


def trackers(wanted: str | list[str] | None) -> list[str]:
    """TensorBoard always, and those that the job names. Raises SpecError for one that is not installed."""
    from transformers.integrations import get_available_reporting_integrations

    names = [wanted] if isinstance(wanted, str) else list(wanted or ())
    if "all" in names:
        return ["all"]
    for name in names:
        if name not in ("none", "flyte", *get_available_reporting_integrations()):  # flyte is not asked for there
            raise SpecError(f"trainer.report_to: {name} is not installed where the workers run; install it there")
    return list(dict.fromkeys(["tensorboard", *(name for name in names if name != "none")]))
