"""The estimate: formulas by hand, DeepSpeed's own numbers, and what every change must do to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hfray.training.memory import Estimate, Setting, activation_bytes, estimate
from hfray.training.size import ModelSize

BILLION = ModelSize(
    parameters=10**9, trainable=10**9, linear=9 * 10**8, largest_module=10**8, num_layers=24, hidden_size=2048,
    num_heads=16, vocab_size=50_000,
)  # fmt: skip
ADAPTED = replace(BILLION, trainable=10**7, added=10**7)
SETTING = Setting(stage=0, world_size=4, precision="bf16", micro_batch_size=8, max_tokens=512)


def of(size: ModelSize = BILLION, **changes: Any) -> Estimate:
    return estimate(size, replace(SETTING, **changes))


def test_mixed_precision_takes_2_2_and_16_bytes() -> None:
    found = of()
    assert (found.weights, found.gradients, found.optimizer) == (2 * 10**9, 2 * 10**9, 16 * 10**9)


def test_stages_divide_one_after_the_other() -> None:
    parts = [(each.weights, each.gradients, each.optimizer) for each in (of(stage=stage) for stage in range(4))]
    giga = 10**9
    assert parts == [
        (2 * giga, 2 * giga, 16 * giga),
        (2 * giga, 2 * giga, 4 * giga),
        (2 * giga, giga // 2, 4 * giga),
        (giga // 2, giga // 2, 4 * giga),
    ]


def test_full_precision() -> None:
    found = of(precision="fp32")
    assert (found.weights, found.gradients, found.optimizer) == (4 * 10**9, 4 * 10**9, 8 * 10**9)
    assert of(precision="fp32", stage=2).optimizer == 3 * 10**9
    assert of(precision="fp32", stage=3).optimizer == 2 * 10**9


def test_an_adapter_has_states_of_its_own_only() -> None:
    found = of(ADAPTED)
    assert (found.weights, found.gradients, found.optimizer) == (2 * 1_010_000_000, 2 * 10**7, 16 * 10**7)


def test_a_base_on_4_bits() -> None:
    found = of(ADAPTED, bits=4, double_quantization=False)
    assert found.weights == 9 * 10**8 * 4.5 / 8 + 2 * (10**8 + 10**7)
    assert of(ADAPTED, bits=4).weights < found.weights < of(ADAPTED).weights / 2
    assert of(ADAPTED, bits=4, stage=3).weights > 9 * 10**8 / 2  # not counted on to be divided


def test_activations_are_those_of_the_paper() -> None:
    size = replace(BILLION, vocab_size=0)
    tokens = 8 * 512
    assert activation_bytes(size, SETTING) == 34 * tokens * 2048 * 24
    eager = replace(SETTING, eager_attention=True)
    assert activation_bytes(size, eager) == tokens * 2048 * 24 * 34 + 5 * 16 * 512 * tokens * 24
    checkpointed = replace(SETTING, checkpointing=True)
    assert activation_bytes(size, checkpointed) == 2 * tokens * 2048 * 24 + 34 * tokens * 2048
    gated = replace(size, mlp_elements=4 * 5504)
    assert activation_bytes(gated, SETTING) == tokens * 24 * (18 * 2048 + 2 * 4 * 5504)
    assert activation_bytes(size, replace(SETTING, precision="fp32")) == 66 * tokens * 2048 * 24
    assert activation_bytes(BILLION, SETTING) == activation_bytes(size, SETTING) + 10 * tokens * 50_000


def test_what_is_offloaded_is_on_the_host() -> None:
    optimizer = of(stage=2, offload="optimizer")
    assert optimizer.optimizer == optimizer.gradients == 0
    assert optimizer.host == 1.5 * 4 * 10**9
    everything = of(stage=3, offload="all")
    assert everything.weights == 0
    assert everything.host == 1.5 * (4 * 10**9 + 10**9 // 2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [1, 2, 8])
def test_deepspeeds_own_estimates_are_near(workers: int) -> None:
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    for offload in (False, True):
        host, device = estimate_zero2_model_states_mem_needs(10**9, workers, 1, offload)
        found = of(stage=2, world_size=workers, offload="optimizer" if offload else "none")
        assert found.weights + found.gradients + found.optimizer == pytest.approx(device, rel=0.01)
        if offload and workers > 1:
            assert found.host * workers <= host * 1.01  # which counts at least four bytes for each worker
    host, device, largest = estimate_zero3_model_states_mem_needs(10**9, 10**8, workers, 1, False, False)
    found = of(stage=3, world_size=workers)
    assert found.weights + found.gradients + found.optimizer == pytest.approx(
        device - largest + 2e9 / workers, rel=0.01
    )
    host, device, largest = estimate_zero3_model_states_mem_needs(10**9, 10**8, workers, 1, True, True)
    found = of(stage=3, world_size=workers, offload="all")
    assert found.host * workers == pytest.approx(host, rel=0.01)
    assert device == largest <= found.buffers


def test_it_is_written_in_gib() -> None:
    assert str(Estimate(2**31, 0, 0, 0, 2**30, 2**30, 2**29)) == (
        "4.0 GiB (weights 2.0, activations 1.0, overhead 1.0) and 0.5 GiB of the host's"
    )
    assert str(Estimate(1, 1, 1, 1, 1, 1)) == "0.0 GiB"
