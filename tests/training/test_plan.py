"""The four ways to say `deepspeed`, each to a whole configuration and what it takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hfray.errors import SpecError
from hfray.training.deepspeed import BatchShape
from hfray.training.memory import Setting
from hfray.training.plan import DeepSpeedPlan, Wanted, plan_deepspeed
from hfray.training.size import ModelSize

SIZE = ModelSize(10**9, 10**9, 9 * 10**8, 10**8, 24, 2048, 16, 0)
SETTING = Setting(stage=0, world_size=4, precision="bf16", micro_batch_size=1, max_tokens=128)
BATCH = BatchShape(32, 1, 8)
GIB = 2**30


def plan(wanted: Any, memory_gib: float = 9, **trainer: Any) -> DeepSpeedPlan:
    return plan_deepspeed(
        Wanted.of(wanted), SIZE, SETTING, BATCH, trainer, memory_bytes=round(memory_gib * GIB), host_bytes=99 * GIB
    )


def test_auto_takes_what_fits() -> None:
    found = plan("auto", max_grad_norm=0.5)
    assert found.choice.stage == found.config["zero_optimization"]["stage"] == 2
    assert found.config["gradient_clipping"] == 0.5
    assert found.config["bf16"] == {"enabled": True}
    assert found.trainer == {}
    offloaded = plan("auto", 2)
    assert offloaded.choice.offload == "all"
    assert offloaded.config["zero_optimization"]["offload_param"]["device"] == "cpu"
    with pytest.raises(SpecError, match="no ZeRO stage fits"):
        plan("auto", 0.5)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_stage_is_taken_even_where_it_is_tight(stage: int) -> None:
    found = plan(stage, 1)
    assert found.config["zero_optimization"]["stage"] == found.choice.stage == stage
    assert "more than there is" in found.choice.reason


def test_an_own_configuration_is_looked_at(tmp_path: Path) -> None:
    own = {"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}}, "fp16": {"enabled": True}}
    file = tmp_path / "own.json"
    file.write_text(json.dumps(own))
    for wanted in (own, str(file)):
        found = plan(wanted)
        assert found.config["zero_optimization"] == own["zero_optimization"]
        assert found.config["train_batch_size"] == 32
        assert found.trainer == {"fp16": True}
        assert (found.choice.stage, found.choice.offload) == (3, "optimizer")
        assert "in fp16" in found.choice.reason
    assert plan({}).choice.stage == 0
    assert plan({"zero_optimization": {"offload_param": {"device": "cpu"}}}).choice.offload == "all"
    with pytest.raises(SpecError, match=r"own\.json: fp16\.enabled is true, but trainer\.fp16 is false"):
        plan(str(file), fp16=False)
