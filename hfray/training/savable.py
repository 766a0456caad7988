"""Which runs can be saved, and so continued: with which optimizers and which of DeepSpeed's features. Knows names and
keys; nothing of files.

A state is saved as pieces of parameters (`slots`). What keeps something else, such as blocks of 8-bit values or one
state for a row, cannot be cut anew for other workers; and what has never been tried is refused rather than hoped for.
Any ZeRO stage, method, precision and number of workers can follow on any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hfray.errors import SpecError

OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "sgd", "rmsprop")
"""Values of `trainer.optim` whose states have the size of their parameters."""
DEEPSPEED_OPTIMIZERS = ("Adam", "AdamW")
"""Values of DeepSpeed's `optimizer.type`; also where it computes on the host."""

_Refused = Callable[[Any], bool]


def _is_set(value: Any) -> bool:
    return bool(value) and value != "auto" and not (isinstance(value, Mapping) and value.get("enabled") is False)


def _above_one(value: Any) -> bool:
    return isinstance(value, int) and value > 1


REFUSED: Mapping[str, tuple[_Refused, str]] = {
    "zero_optimization.offload_optimizer.device": (lambda value: value == "nvme", "states on disks; use cpu"),
    "zero_optimization.offload_param.device": (lambda value: value == "nvme", "weights on disks; use cpu"),
    "zero_optimization.offload_optimizer.ratio": (lambda value: value not in (None, 1, 1.0), "two optimizers; use 1"),
    "zero_optimization.offload_optimizer.super_offload": (_is_set, "an optimizer of its own; remove it"),
    "zero_optimization.zenflow": (_is_set, "an optimizer of its own; remove it"),
    "zero_optimization.zero_hpz_partition_size": (_above_one, "second copies of weights; remove it"),
    "zero_optimization.mics_shard_size": (_above_one, "weights divided among some of the workers; remove it"),
    "zero_optimization.zero_quantized_weights": (_is_set, "weights in other formats; remove it"),
    "zero_optimization.zero_quantized_nontrainable_weights": (_is_set, "weights in other formats; remove it"),
    "bf16.bf16_master_weights_and_grads": (_is_set, "weights without fp32 copies; remove it"),
    "bf16.bf16_optimizer_states": (_is_set, "states without fp32; remove it"),
    "fp16.fp16_master_weights_and_grads": (_is_set, "weights without fp32 copies; remove it"),
    "torch_autocast": (_is_set, "a scale that is not DeepSpeed's; use bf16 or fp16"),
    "tensor_parallel.autotp_size": (_above_one, "tensors divided among workers; remove it"),
    "sequence_parallel_size": (_above_one, "sequences divided among workers; remove it"),
    "compression_training": (_is_set, "weights that change their form; remove it"),
    "curriculum_learning": (_is_set, "an order of samples of its own; remove it"),
    "data_efficiency": (_is_set, "an order of samples of its own; remove it"),
    "progressive_layer_drop": (_is_set, "a schedule of its own; remove it"),
    "eigenvalue": (_is_set, "a schedule of its own; remove it"),
}
"""DeepSpeed's key to when it is refused, and what it means, with what to do."""


def check_savable(optim: str, config: Mapping[str, Any]) -> None:
    """optim: `trainer.optim` (Transformers' name, or its default); config: DeepSpeed's, as the workers get it.

    Raises SpecError, a line for each thing that a checkpoint could not hold.
    """
    found = []
    section = config.get("optimizer")
    if isinstance(section, Mapping):
        if section.get("type") not in DEEPSPEED_OPTIMIZERS:
            known = " or ".join(DEEPSPEED_OPTIMIZERS)
            found.append(f"deepspeed: optimizer.type is {section.get('type')}, which cannot be saved; use {known}")
    elif optim not in OPTIMIZERS:
        found.append(f"trainer.optim: {optim} keeps states that cannot be saved; use {', '.join(OPTIMIZERS)}")
    for key, (refused, what) in REFUSED.items():
        value: Any = config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if refused(value):
            found.append(f"deepspeed: {key} cannot be saved: it has {what}")
    if found:
        raise SpecError("\n".join(found))
