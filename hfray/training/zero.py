"""Which ZeRO stage fits. Knows the estimate and an amount of memory; not how DeepSpeed is told.

The stages are tried from the one that communicates least: 0, 1, 2, 3 (stages 1 and 2 communicate as much as plain data
parallelism, stage 3 half as much again: Rajbhandari et al. 2020, arXiv:1910.02054, section 7), then, on a GPU, with the
optimizer in the host's memory, then with everything there. The first that fits is taken.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hfray.errors import SpecError
from hfray.training.memory import Estimate, Offload, Setting, estimate
from hfray.training.size import ModelSize

USABLE = 0.9
"""Share of the memory that is planned with: fragments and the allocator's cache take some."""
STAGES = (0, 1, 2, 3)
_OFFLOADED: tuple[tuple[int, Offload], ...] = ((2, "optimizer"), (3, "optimizer"), (3, "all"))


@dataclass(frozen=True, slots=True)
class Choice:
    """A stage, and what it is expected to take."""

    stage: int
    offload: Offload
    estimate: Estimate
    reason: str
    """One line, for the log and the report."""


def choose_stage(size: ModelSize, setting: Setting, memory_bytes: int, host_bytes: int = 0) -> Choice:
    """The first way that fits. setting: its stage and offload do not count; memory_bytes: of a worker's device;
    host_bytes: of the machine's memory, a worker's share, where the device is a GPU.

    Raises SpecError, with what would help, where nothing fits.
    """
    ways: list[tuple[int, Offload]] = [(stage, "none") for stage in STAGES if stage == 0 or setting.world_size > 1]
    ways += _OFFLOADED if setting.on_gpu else ()
    too_large: list[tuple[str, Estimate]] = []
    for stage, offload in ways:
        needed = estimate(size, replace(setting, stage=stage, offload=offload))
        if needed.device <= USABLE * memory_bytes and needed.host <= USABLE * host_bytes:
            name = _name(stage, offload)
            before = f"{too_large[-1][0]} would need {too_large[-1][1].device / 2**30:.1f} GiB" if too_large else ""
            because = f"; {before}" if before else "; it communicates least"
            return Choice(
                stage, offload, needed, f"{name} for {_what(size, setting, memory_bytes)}: expects {needed}{because}"
            )
        too_large.append((_name(stage, offload), needed))
    name, least = min(too_large, key=lambda each: each[1].device)
    raise SpecError(
        f"deepspeed: auto: {_what(size, setting, memory_bytes)}: no ZeRO stage fits; the smallest, {name}, needs "
        f"{least}, and {USABLE:.0%} of the memory may be planned with; use {', '.join(_remedies(size, setting))}"
    )


def fixed_stage(size: ModelSize, setting: Setting, memory_bytes: int) -> Choice:
    """A stage that the author chose, with what it is expected to take; whether it fits is theirs to judge."""
    needed = estimate(size, setting)
    warning = "" if needed.device <= memory_bytes else ", more than there is"
    name = _name(setting.stage, setting.offload)
    what = _what(size, setting, memory_bytes)
    return Choice(setting.stage, setting.offload, needed, f"{name} as asked for, for {what}: expects {needed}{warning}")


def _name(stage: int, offload: Offload) -> str:
    beside = {"none": "", "optimizer": " with the optimizer offloaded", "all": " with everything offloaded"}
    return f"ZeRO-{stage}{beside[offload]}"


def _what(size: ModelSize, setting: Setting, memory_bytes: int) -> str:
    trained = "all" if not size.added else _count(size.trainable)
    workers = "1 worker" if setting.world_size == 1 else f"{setting.world_size} workers"
    bits = f" on {setting.bits} bits" if setting.bits else ""
    return (
        f"{_count(size.parameters)} parameters, {trained} trained{bits} in {setting.precision}, on {workers} of "
        f"{memory_bytes / 2**30:.1f} GiB"
    )


def _count(parameters: int) -> str:
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if parameters >= unit:
            return f"{parameters / unit:.3g}{name}"
    return str(parameters)


def _remedies(size: ModelSize, setting: Setting) -> list[str]:
    found = []
    if not setting.checkpointing:
        found.append("trainer.activation_checkpointing: true")
    if setting.micro_batch_size > 1:
        found.append(f"a trainer.per_device_train_batch_size below {setting.micro_batch_size}")
    if not size.added:
        found.append("method: lora")
    elif setting.bits is None:
        found.append("method: qlora")
    if setting.precision == "fp32":
        found.append("trainer.bf16: true")
    return [*found, "more workers, or workers with more memory"]
