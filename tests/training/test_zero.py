"""The stage that is chosen: the first that fits, why, and what would help where none does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfray.errors import SpecError
from hfray.training.memory import Setting, estimate
from hfray.training.size import ModelSize
from hfray.training.zero import choose_stage, fixed_stage

SIZE = ModelSize(
    parameters=10**9, trainable=10**9, linear=9 * 10**8, largest_module=10**8, num_layers=24, hidden_size=2048,
    num_heads=16, vocab_size=0,
)  # fmt: skip
SETTING = Setting(stage=0, world_size=4, precision="bf16", micro_batch_size=1, max_tokens=128)
GIB = 2**30


@pytest.mark.parametrize(
    ("memory", "stage", "offload"),
    [
        (30, 0, "none"),
        (12, 1, "none"),
        (9, 2, "none"),
        (7.5, 3, "none"),
        (5, 2, "optimizer"),
        (3, 3, "optimizer"),
        (2, 3, "all"),
    ],
)
def test_the_first_stage_that_fits(memory: float, stage: int, offload: str) -> None:
    choice = choose_stage(SIZE, SETTING, round(memory * GIB), host_bytes=100 * GIB)
    assert (choice.stage, choice.offload) == (stage, offload)
    assert choice.estimate == estimate(SIZE, replace(SETTING, stage=stage, offload=offload))


def test_the_reason_is_one_line() -> None:
    choice = choose_stage(SIZE, SETTING, 9 * GIB)
    assert choice.reason == (
        "ZeRO-2 for 1B parameters, all trained in bf16, on 4 workers of 9.0 GiB: expects 7.3 GiB (weights 1.9, "
        "gradients 0.5, optimizer 3.7, activations 0.2, overhead 1.0); ZeRO-1 would need 8.7 GiB"
    )
    assert choose_stage(SIZE, SETTING, 40 * GIB).reason.endswith("; it communicates least")


@given(st.integers(1, 10**11), st.integers(1, 64))
def test_what_is_chosen_fits_or_the_error_says_what_would_help(memory: int, world_size: int) -> None:
    setting = replace(SETTING, world_size=world_size, on_gpu=False)
    least = min(
        estimate(SIZE, replace(setting, stage=stage)).device for stage in ((0, 1, 2, 3) if world_size > 1 else (0,))
    )
    if least > 0.9 * memory:
        with pytest.raises(SpecError, match="no ZeRO stage fits"):
            choose_stage(SIZE, setting, memory)
        return
    choice = choose_stage(SIZE, setting, memory)
    assert choice.estimate.device <= 0.9 * memory
    assert choice.offload == "none"


def test_where_nothing_fits() -> None:
    with pytest.raises(SpecError) as caught:
        choose_stage(SIZE, replace(SETTING, micro_batch_size=8, precision="fp32"), GIB, host_bytes=GIB)
    assert "use trainer.activation_checkpointing: true, a trainer.per_device_train_batch_size below 8" in str(
        caught.value
    )
    assert "method: lora, trainer.bf16: true, more workers" in str(caught.value)
    adapted = replace(SIZE, trainable=10**6, added=10**6)
    with pytest.raises(SpecError, match="method: qlora"):
        choose_stage(adapted, SETTING, GIB)


def test_the_host_must_hold_what_is_offloaded() -> None:
    with pytest.raises(SpecError, match="no ZeRO stage fits"):
        choose_stage(SIZE, SETTING, 5 * GIB, host_bytes=GIB)


def test_a_stage_that_was_asked_for() -> None:
    choice = fixed_stage(SIZE, replace(SETTING, stage=1), 8 * GIB)
    assert choice.stage == 1
    assert choice.reason.startswith("ZeRO-1 as asked for, for 1B parameters")
    assert choice.reason.endswith("more than there is")
    adapted = replace(SIZE, trainable=2_500_000, added=2_500_000)
    reason = fixed_stage(adapted, replace(SETTING, stage=2, bits=4, world_size=1), 8 * GIB).reason
    assert "1B parameters, 2.5M trained on 4 bits in bf16, on 1 worker of 8.0 GiB" in reason
