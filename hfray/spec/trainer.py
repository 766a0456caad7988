"""Transformers' training arguments by their own names: which a job may give, which are the job's own words, which
change no answer. Knows names; only `check_trainer_fields` looks at Transformers' own class, whose import takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Any, get_args, get_type_hints

from hfray.errors import SpecError
from hfray.spec.problems import close_or_known, shown

_ORDER = "is settled by hfray's order of samples; remove it"
_RAY = "is set by Ray Train; remove it"
_HUB = "is not for a job; publish the finished folder with `hfray push`"
_EVALUATION = "does nothing here, where evaluations are made by the predictor that scores; remove it"
_CHECKPOINTS = "does nothing here, where checkpoints are hfray's own; remove it"
_BATCHES = "does nothing here, where a worker reads its batches itself; remove it"
_DDP = "does nothing here, where DeepSpeed takes the place of DistributedDataParallel; remove it"

RESERVED: Mapping[str, str] = {
    "output_dir": "is the job's own output.path",
    "seed": "is the job's own seed",
    "data_seed": "is the job's own seed",
    "deepspeed": "is the job's own deepspeed",
    "gradient_accumulation_steps": "follows from global_batch_size and the number of workers; remove it",
    "auto_find_batch_size": "would change the batch; say per_device_train_batch_size",
    "resume_from_checkpoint": "is not needed; the same command goes on where the job stopped",
    "save_only_model": "would leave nothing to resume from; remove it",
    "average_tokens_across_devices": "is always true, so that a step is the same for any workers; remove it",
    "use_cpu": "follows from workers.gpus; remove it",
    "fsdp": "is not supported; choose a ZeRO stage as deepspeed",
    "fsdp_config": "is not supported; choose a ZeRO stage as deepspeed",
    **dict.fromkeys(
        (
            "ignore_data_skip", "dataloader_drop_last", "train_sampling_strategy", "length_column_name",
            "remove_unused_columns", "accelerator_config", "parallelism_config",
        ),
        _ORDER,
    ),
    **dict.fromkeys(("local_rank", "ddp_backend", "ddp_timeout"), _RAY),
    **dict.fromkeys(
        (
            "push_to_hub", "hub_token", "hub_private_repo", "hub_model_id", "hub_strategy", "hub_always_push",
            "hub_revision",
        ),
        _HUB,
    ),
    **dict.fromkeys(
        (
            "prediction_loss_only", "eval_accumulation_steps", "eval_do_concat_batches", "eval_use_gather_object",
            "include_for_metrics", "batch_eval_metrics", "bf16_full_eval", "fp16_full_eval", "label_names",
        ),
        _EVALUATION,
    ),
    **dict.fromkeys(
        ("save_on_each_node", "enable_jit_checkpoint", "restore_callback_states_from_checkpoint"), _CHECKPOINTS
    ),
    **dict.fromkeys(
        (
            "dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers",
            "dataloader_prefetch_factor", "dataloader_multiprocessing_context", "dataloader_in_order",
        ),
        _BATCHES,
    ),
    **dict.fromkeys(
        ("ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_static_graph"), _DDP
    ),
    **dict.fromkeys(("do_train", "do_eval", "do_predict"), "does nothing here; remove it"),
    "optim_target_modules": "is for optimizers whose states cannot be saved; remove it",
    "logging_nan_inf_filter": "does nothing here, where a loss that is no finite number ends the run; remove it",
    "disable_tqdm": "does nothing here, where progress is told by the job; use `hfray run --quiet`, or remove it",
    "include_num_input_tokens_seen": "is not needed, tokens are counted and logged in any case; remove it",
}  # fmt: skip
"""Training arguments that a job does not give, and why."""

HONOURED = frozenset({
    # by the run's length, schedule, batch, cadence
    "num_train_epochs", "max_steps", "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps",
    "per_device_train_batch_size", "per_device_eval_batch_size", "logging_strategy", "logging_steps",
    "logging_first_step", "eval_strategy", "eval_steps", "eval_delay", "eval_on_start", "save_strategy", "save_steps",
    "save_total_limit", "load_best_model_at_end", "metric_for_best_model", "greater_is_better", "bf16", "fp16",
    # by Transformers' Trainer
    "optim", "optim_args", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm",
    "label_smoothing_factor", "tf32", "activation_checkpointing", "activation_checkpointing_kwargs",
    "gradient_checkpointing", "gradient_checkpointing_kwargs", "torch_compile", "torch_compile_backend",
    "torch_compile_mode", "use_liger_kernel", "liger_kernel_config", "use_cache", "neftune_noise_alpha",
    "torch_empty_cache_steps", "full_determinism", "debug", "skip_memory_metrics",
    # by its logs and trackers
    "log_on_each_node", "log_level", "log_level_replica", "report_to", "run_name", "project", "trackio_space_id",
    "trackio_bucket_id", "trackio_static_space_id",
})  # fmt: skip
"""All others of this release. What a newer one adds is not taken before it is known to do something here."""

LEAST: Mapping[str, int] = {
    "per_device_train_batch_size": 1, "per_device_eval_batch_size": 1, "warmup_steps": 0, "torch_empty_cache_steps": 1,
}  # fmt: skip
"""Of arguments below which every worker would fail."""

ALIASES: Mapping[str, str] = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}
"""Older names that Transformers still takes, with a warning, and what is passed on in their place."""

RENAMED: Mapping[str, str] = {
    "warmup_ratio": "write warmup_steps; below 1 it is a share of the run",
    "evaluation_strategy": "write eval_strategy",
    "no_cuda": "write workers.gpus: 0",
    "per_gpu_train_batch_size": "write per_device_train_batch_size",
    "per_gpu_eval_batch_size": "write per_device_eval_batch_size",
    "overwrite_output_dir": "start over with --restart",
    "logging_dir": "logs lie in the output folder",
    "group_by_length": "is settled by hfray's order of samples",
}
"""What recipes for other versions say, and what to write here."""

SMOOTHED = ("text-classification", "text-ranking", "token-classification", "text-generation", "fill-mask")
"""Tasks for which `label_smoothing_factor` does something: those whose model has a loss over its `logits`."""

METRIC_SCHEDULES = ("reduce_lr_on_plateau", "greedy")
"""Values of `lr_scheduler_type` that a job does not give: they follow a metric, and rates here follow samples."""

OPERATIONAL = frozenset({
    "per_device_train_batch_size", "per_device_eval_batch_size", "logging_strategy", "logging_steps",
    "logging_first_step", "log_on_each_node", "log_level", "log_level_replica", "report_to", "run_name", "project",
    "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "save_total_limit", "skip_memory_metrics",
    "debug", "torch_empty_cache_steps", "gradient_checkpointing", "gradient_checkpointing_kwargs",
    "activation_checkpointing", "activation_checkpointing_kwargs",
})  # fmt: skip
"""Training arguments that change speed, memory or bookkeeping, but no answer beyond rounding: a run goes on with other
values. The batch of one worker is among them, because the global batch is fixed."""


def refusal(name: str) -> str | None:
    """Why a job may not give an argument of this name, as far as that can be told without Transformers."""
    if name in RESERVED:
        return RESERVED[name]
    return f"is not an argument of this release; {RENAMED[name]}" if name in RENAMED else None


def check_trainer_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with values of the types that `TrainingArguments` states; "1e-3", which YAML reads as text, is a
    number. Imports Transformers.

    Raises SpecError, a line for each argument that is unknown, refused or of another type.
    """
    from dataclasses import fields as dataclass_fields

    from transformers import TrainingArguments

    hints = get_type_hints(TrainingArguments)
    known = [each.name for each in dataclass_fields(TrainingArguments) if each.init and each.name in HONOURED]
    checked: dict[str, Any] = {}
    wrong: list[str] = []
    for name, value in fields.items():
        problem = refusal(name)
        if problem is None and name not in known:
            hint = close_or_known(name, known)
            problem = "is no training argument" + (hint if hint.startswith(",") else " of Transformers")
        if problem is None:
            own_name = ALIASES.get(name, name)
            if own_name != name and own_name in fields:
                problem = f"is an older name of {own_name}, which is given too; remove it"
            else:
                try:
                    checked[own_name] = _valued(value, hints[name])
                except ValueError as error:
                    problem = str(error)
        if problem is not None:
            wrong.append(f"trainer.{name}: {problem}")
    wrong += [f"trainer.{name}: {problem}" for name, problem in _out_of_range(checked)]
    if wrong:
        raise SpecError("\n".join(wrong))
    return checked


def _out_of_range(checked: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Values of the right types that every worker would refuse, or fail of."""
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    for name, least in LEAST.items():
        value = checked.get(name)
        if value is not None and value < least:
            yield name, f"must be {least} or more, not {shown(value)}"
    wanted = checked.get("report_to") or ()
    for each in [wanted] if isinstance(wanted, str) else wanted:
        if each not in ("all", "none", *INTEGRATION_TO_CALLBACK):
            yield "report_to", f"unknown name {each!r}{close_or_known(each, INTEGRATION_TO_CALLBACK)}"


def _valued(value: Any, hint: Any) -> Any:
    """The value as the hint's type. Raises ValueError: what it must be."""
    from pydantic import TypeAdapter, ValidationError

    choices = [str(member.value) for each in _members(hint) if _is_enum(each) for member in each]
    if value is False and "no" in choices:
        return "no"  # as YAML reads it
    if choices and isinstance(value, str):
        if value not in choices:
            raise ValueError(f"unknown value {shown(value)}{close_or_known(value, choices)}")
        return value
    if isinstance(value, bool) and bool not in _members(hint):
        raise ValueError(f"must be {_words(hint)}, not {shown(value)}")
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError:
        raise ValueError(f"must be {_words(hint)}, not {shown(value)}") from None


def _words(hint: Any) -> str:
    names = {
        int: "a whole number", float: "a number", bool: "true or false", str: "text", dict: "a mapping of keys",
        list: "a list", type(None): "null",
    }  # fmt: skip
    found = (names.get(getattr(each, "__origin__", each)) for each in _members(hint))
    return " or ".join(dict.fromkeys(each for each in found if each))


def _members(hint: Any) -> Iterable[Any]:
    arguments = get_args(hint)
    return arguments if arguments and getattr(hint, "__origin__", None) not in (dict, list) else (hint,)


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Enum)
