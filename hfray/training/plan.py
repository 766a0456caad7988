"""A job's `deepspeed` settled: the configuration that the workers get, and what it is expected to take. Knows the four
ways to say it; the files, formulas and keys are others'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hfray.training.deepspeed import BatchShape, config_for, read_config, settle
from hfray.training.memory import Offload, Precision, Setting
from hfray.training.size import ModelSize
from hfray.training.zero import Choice, choose_stage, fixed_stage

MAX_GRAD_NORM = 1.0
"""What Transformers clips gradients to where nothing is said."""


@dataclass(frozen=True, slots=True)
class DeepSpeedPlan:
    """config: plain JSON, whole; trainer: training arguments that an author's own configuration decides."""

    config: Mapping[str, Any]
    trainer: Mapping[str, Any]
    choice: Choice


def plan_deepspeed(
    wanted: int | str | Mapping[str, Any],
    size: ModelSize,
    setting: Setting,
    batch: BatchShape,
    trainer: Mapping[str, Any],
    *,
    memory_bytes: int,
    host_bytes: int = 0,
) -> DeepSpeedPlan:
    """wanted: `auto`, a stage, a file or a mapping (`TrainJob.deepspeed`). setting: its stage and offload are those of
    the answer. trainer: the job's training arguments. memory_bytes, host_bytes: see `choose_stage`.

    Raises SpecError: nothing fits, or the author's own configuration contradicts the job.
    """
    if wanted == "auto" or isinstance(wanted, int):
        if isinstance(wanted, int):
            choice = fixed_stage(size, replace(setting, stage=wanted, offload="none"), memory_bytes)
        else:
            choice = choose_stage(size, setting, memory_bytes, host_bytes)
        config = config_for(
            choice.stage,
            batch,
            size,
            precision=setting.precision,
            max_grad_norm=float(trainer.get("max_grad_norm", MAX_GRAD_NORM)),
            offload=choice.offload,
            on_gpu=setting.on_gpu,
        )
        return DeepSpeedPlan(config, {}, choice)
    own = read_config(wanted) if isinstance(wanted, str) else wanted
    settled = settle(own, batch, trainer, name="deepspeed" if not isinstance(wanted, str) else wanted)
    own_setting = replace(
        setting,
        stage=_section(own, "zero_optimization").get("stage") or 0,
        offload=_offload(own),
        precision=_precision(settled.trainer, setting.precision),
    )
    return DeepSpeedPlan(settled.config, settled.trainer, fixed_stage(size, own_setting, memory_bytes))


def _offload(config: Mapping[str, Any]) -> Offload:
    zero = _section(config, "zero_optimization")
    away = [_section(zero, key).get("device", "none") != "none" for key in ("offload_optimizer", "offload_param")]
    return "all" if away[1] else "optimizer" if away[0] else "none"


def _precision(decided: Mapping[str, Any], default: Precision) -> Precision:
    named: tuple[Precision, ...] = ("bf16", "fp16")
    return next((each for each in named if decided.get(each) is True), default)


def _section(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = config.get(key)
    return found if isinstance(found, Mapping) else {}
