"""DeepSpeed's configuration: made of a stage and a batch, or the author's own, checked against the job. Knows keys; not
DeepSpeed itself, not how much fits.

The author's own configuration is taken as it is. Where the job is silent it decides (`Settled.trainer`); where the job
says otherwise it is refused, key by key. What it leaves out of the batch is filled in, since the global batch is the
job's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfray.errors import SpecError
from hfray.training.memory import Offload, Precision, bucket_elements, live_elements
from hfray.training.size import ModelSize

MAX_FILE_BYTES = 1 << 20
_NO_REPORTS = 2**31 - 1
"""Steps between DeepSpeed's own log lines."""
_FROM_JOB = "auto"
"""What Transformers replaces by the training arguments."""

_SAME: dict[str, str] = {
    "gradient_clipping": "max_grad_norm",
    "bf16.enabled": "bf16",
    "fp16.enabled": "fp16",
    "optimizer.params.lr": "learning_rate",
    "optimizer.params.eps": "adam_epsilon",
    "optimizer.params.weight_decay": "weight_decay",
    "scheduler.params.warmup_max_lr": "learning_rate",
    "scheduler.params.warmup_num_steps": "warmup_steps",
}
"""DeepSpeed's key to the training argument that says the same (transformers/integrations/deepspeed.py)."""

_KINDS: dict[str, tuple[str, Mapping[str, tuple[str, ...]]]] = {
    "optimizer.type": ("optim", dict.fromkeys(("Adam", "AdamW"), ("adamw_torch", "adamw_torch_fused"))),
    "scheduler.type": ("lr_scheduler_type", {
        "WarmupLR": ("constant_with_warmup",), "WarmupDecayLR": ("linear",), "WarmupCosineLR": ("cosine",),
    }),
}  # fmt: skip
"""DeepSpeed's key to a training argument that it takes the place of, and which values of both mean one thing."""


_FOREIGN_OPTIMIZER = {"zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False}
"""For the Trainer's AdamW, which is torch's: DeepSpeed knows nothing of it, and its own for the CPU has to be
compiled."""


@dataclass(frozen=True, slots=True)
class BatchShape:
    """A global batch as the workers share it."""

    global_batch_size: int
    micro_batch_size: int
    accumulation: int


@dataclass(frozen=True, slots=True)
class Settled:
    """A configuration that agrees with the job. trainer: training arguments that it decides, since the job does not."""

    config: dict[str, Any]
    trainer: dict[str, Any]


def config_for(
    stage: int,
    batch: BatchShape,
    size: ModelSize,
    *,
    precision: Precision,
    max_grad_norm: float,
    offload: Offload = "none",
    on_gpu: bool = True,
) -> dict[str, Any]:
    """The configuration of a ZeRO stage. There is no optimizer and no scheduler in it: they are the Trainer's."""
    bucket = bucket_elements(size)
    zero: dict[str, Any] = {
        "stage": stage,
        "overlap_comm": on_gpu and stage > 0,
        "contiguous_gradients": True,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
    }
    if offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": on_gpu}
    if stage == 3:
        if offload == "all":
            zero["offload_param"] = {"device": "cpu", "pin_memory": on_gpu}
        # DeepSpeed's defaults hold up to a billion weights gathered, whatever fits.
        zero |= {
            "stage3_max_live_parameters": live_elements(size),
            "stage3_max_reuse_distance": live_elements(size),
            "stage3_prefetch_bucket_size": bucket * 9 // 10,
            "stage3_param_persistence_threshold": 10 * size.hidden_size,
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    return {
        "train_batch_size": batch.global_batch_size,
        "train_micro_batch_size_per_gpu": batch.micro_batch_size,
        "gradient_accumulation_steps": batch.accumulation,
        "gradient_clipping": max_grad_norm,
        "bf16": {"enabled": precision == "bf16"},
        "fp16": {"enabled": precision == "fp16"},
        "zero_optimization": zero,
        **_FOREIGN_OPTIMIZER,
        "steps_per_print": _NO_REPORTS,
        "wall_clock_breakdown": False,
    }


def read_config(path: str) -> dict[str, Any]:
    """The author's JSON file. Raises SpecError for one that is none."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise SpecError(f"deepspeed: {path} cannot be read: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise SpecError(f"deepspeed: {path} is no DeepSpeed configuration: larger than 1 MiB")
    try:
        config = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"deepspeed: {path} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise SpecError(f"deepspeed: {path} must hold a mapping of DeepSpeed's keys")
    return config


def settle(
    config: Mapping[str, Any], batch: BatchShape, trainer: Mapping[str, Any], *, name: str = "deepspeed"
) -> Settled:
    """The author's configuration with the job's batch. trainer: the training arguments that the job gives.

    Raises SpecError: keys that contradict the job, one line each, with both values.
    """
    found: list[str] = []
    decided: dict[str, Any] = {}
    sizes = {
        "train_batch_size": ("global_batch_size", batch.global_batch_size),
        "train_micro_batch_size_per_gpu": ("trainer.per_device_train_batch_size", batch.micro_batch_size),
        "gradient_accumulation_steps": ("what follows from global_batch_size and workers", batch.accumulation),
    }
    for key, (field, value) in sizes.items():
        if _given(config, key) not in (None, _FROM_JOB, value):
            found.append(f"{key} is {_shown(_given(config, key))}, but {field} is {value}")
    for key, field in _SAME.items():
        value = _given(config, key)
        if value is None or value == _FROM_JOB:
            continue
        said = decided | dict(trainer)
        if field in said and not _equal(said[field], value):
            place = f"trainer.{field}" if field in trainer else f"another key that sets {field}"
            found.append(f"{key} is {_shown(value)}, but {place} is {_shown(said[field])}")
        decided[field] = value
    halves = [
        f"trainer.{each}" if each in trainer else f"{each}.enabled"
        for each in ("bf16", "fp16")
        if {**decided, **trainer}.get(each) is True
    ]
    if len(halves) == 2:
        found.append(f"{halves[0]} is true, and so is {halves[1]}; choose one of them")
    betas = _given(config, "optimizer.params.betas")
    if isinstance(betas, list | tuple) and len(betas) == 2:
        for field, beta in zip(("adam_beta1", "adam_beta2"), betas, strict=True):
            if field in trainer and not _equal(trainer[field], beta):
                found.append(f"optimizer.params.betas is {_shown(betas)}, but trainer.{field} is {trainer[field]}")
            decided[field] = beta
    for key, (field, same) in _KINDS.items():
        value = _given(config, key)
        if value is not None and field in trainer and trainer[field] not in same.get(str(value), ()):
            found.append(f"{key} is {_shown(value)}, but trainer.{field} is {_shown(trainer[field])}; remove one")
    stage = _given(config, "zero_optimization.stage")
    if stage not in (None, 0, 1, 2, 3):
        found.append(f"zero_optimization.stage is {_shown(stage)}; known: 0, 1, 2, 3")
    if "elasticity" in config:
        found.append("elasticity changes the global batch, which is the job's; use workers.min and workers.max")
    if found:
        raise SpecError("\n".join(f"{name}: {each}" for each in found))
    filled: dict[str, Any] = {key: value for key, (_, value) in sizes.items()}
    optimizer = config.get("optimizer")
    if isinstance(optimizer, Mapping):
        # What it leaves out would be DeepSpeed's own defaults, whose rate is another than that of all other runs.
        own = dict.fromkeys(("lr", "betas", "eps", "weight_decay"), _FROM_JOB) | dict(optimizer.get("params") or {})
        filled["optimizer"] = {**optimizer, "params": own}
    else:
        filled |= {key: value for key, value in _FOREIGN_OPTIMIZER.items() if key not in config}
    return Settled({**config, **filled}, {key: value for key, value in decided.items() if key not in trainer})


def _given(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other) or float(one) == float(other)
    except (TypeError, ValueError):
        return False


def _shown(value: Any) -> str:
    return json.dumps(value, default=str)
