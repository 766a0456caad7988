"""A job's `deepspeed` settled: the configuration that the workers get, and what it is expected to take. Knows the four
ways to say it; the files, formulas and keys are others'.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hfray.training.deepspeed import BatchShape, Settled, config_for, read_config, settle
from hfray.training.memory import Offload, Precision, Setting
from hfray.training.savable import check_savable
from hfray.training.size import ModelSize
from hfray.training.zero import Choice, choose_stage, fixed_stage

MAX_GRAD_NORM = 1.0
"""What Transformers clips gradients to where nothing is said."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a job says. value: `auto`, a stage, or the author's own configuration; name: of its file, for messages."""

    value: int | str | Mapping[str, Any]
    name: str = "deepspeed"

    @classmethod
    def of(cls, deepspeed: int | str | Mapping[str, Any]) -> Wanted:
        """deepspeed: `TrainJob.deepspeed`. Reads a file, once: workers get what was checked. Raises SpecError."""
        if isinstance(deepspeed, str) and deepspeed != "auto":
            return cls(read_config(deepspeed), deepspeed)
        return cls(deepspeed)

    def own(self, batch: BatchShape, trainer: Mapping[str, Any]) -> Settled | None:
        """The author's own configuration with the job's batch; None if hfray makes one. Raises SpecError."""
        return settle(self.value, batch, trainer, name=self.name) if isinstance(self.value, Mapping) else None

    def check(self, batches: Iterable[BatchShape], trainer: Mapping[str, Any]) -> dict[str, Any]:
        """What can be told without a model. batches: of all numbers of workers that the run may have. Gives the
        training arguments with those that the author's own configuration decides.

        Raises SpecError: keys that contradict the job, and what no checkpoint could hold.
        """
        decided: dict[str, Any] = {}
        for batch in batches:
            settled = self.own(batch, trainer)
            check_savable(str(trainer.get("optim", "adamw_torch")), {} if settled is None else settled.config)
            decided = {} if settled is None else settled.trainer
        return {**trainer, **decided}


@dataclass(frozen=True, slots=True)
class DeepSpeedPlan:
    """config: plain JSON, whole; trainer: training arguments that an author's own configuration decides."""

    config: Mapping[str, Any]
    trainer: Mapping[str, Any]
    choice: Choice


def plan_deepspeed(
    wanted: Wanted,
    size: ModelSize,
    setting: Setting,
    batch: BatchShape,
    trainer: Mapping[str, Any],
    *,
    memory_bytes: int,
    host_bytes: int = 0,
) -> DeepSpeedPlan:
    """setting: its stage and offload are those of the answer. trainer: the job's training arguments. memory_bytes,
    host_bytes: see `choose_stage`.

    Raises SpecError: nothing fits, or the author's own configuration contradicts the job.
    """
    settled = wanted.own(batch, trainer)
    if settled is None:
        if isinstance(wanted.value, int):
            choice = fixed_stage(size, replace(setting, stage=wanted.value, offload="none"), memory_bytes)
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
    own_setting = replace(
        setting,
        stage=_section(settled.config, "zero_optimization").get("stage") or 0,
        offload=_offload(settled.config),
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
