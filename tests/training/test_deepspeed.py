"""DeepSpeed's configuration: one that DeepSpeed takes, and an author's own against the job's words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hfray.errors import SpecError
from hfray.training.deepspeed import BatchShape, config_for, read_config, settle
from hfray.training.size import ModelSize

SIZE = ModelSize(10**8, 10**8, 9 * 10**7, 10**7, 12, 768, 12, 30_000)
BATCH = BatchShape(global_batch_size=32, micro_batch_size=8, accumulation=2)


def made(stage: int = 2, **changes: Any) -> dict[str, Any]:
    return config_for(stage, BATCH, SIZE, **{"precision": "bf16", "max_grad_norm": 1.0} | changes)


def test_the_configuration_of_a_stage() -> None:
    config = made(2, max_grad_norm=0.5)
    assert config["train_batch_size"] == 32
    assert config["train_micro_batch_size_per_gpu"] == 8
    assert config["gradient_accumulation_steps"] == 2
    assert config["gradient_clipping"] == 0.5
    assert (config["bf16"], config["fp16"]) == ({"enabled": True}, {"enabled": False})
    assert config["zero_optimization"]["stage"] == 2
    assert "optimizer" not in config
    assert json.loads(json.dumps(config)) == config
    assert made(precision="fp32")["bf16"] == made(precision="fp32")["fp16"] == {"enabled": False}
    assert made(2, offload="optimizer")["zero_optimization"]["offload_optimizer"]["device"] == "cpu"
    assert "offload_param" not in made(3, offload="optimizer")["zero_optimization"]
    assert made(3, offload="all")["zero_optimization"]["offload_param"]["device"] == "cpu"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_deepspeed_takes_it(stage: int) -> None:
    from deepspeed.runtime.config import DeepSpeedConfig

    for precision in ("fp32", "bf16", "fp16"):
        config = made(stage, precision=precision, offload="all" if stage == 3 else "none")
        config["gradient_accumulation_steps"] = 4  # one process here
        taken = DeepSpeedConfig(config)
        assert taken.zero_optimization_stage == stage
        assert taken.bfloat16_config.enabled == (precision == "bf16")
        assert taken.gradient_clipping == 1.0
        assert taken.zero_config.reduce_bucket_size == 2**20


def test_an_own_configuration_is_taken_as_it_is() -> None:
    own = {
        "zero_optimization": {"stage": 1, "reduce_bucket_size": "auto"},
        "bf16": {"enabled": "auto"},
        "train_batch_size": "auto",
        "anything": {"deep": [1]},
    }
    settled = settle(own, BATCH, {"learning_rate": 1e-3})
    assert {key: settled.config[key] for key in ("zero_optimization", "bf16", "anything")} == {
        key: own[key] for key in ("zero_optimization", "bf16", "anything")
    }
    assert settled.config["train_batch_size"] == 32
    assert settled.config["gradient_accumulation_steps"] == 2
    assert settled.trainer == {}
    assert own["train_batch_size"] == "auto"


def test_where_the_job_is_silent_it_decides() -> None:
    own = {
        "gradient_clipping": 0.3,
        "bf16": {"enabled": True},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4, "betas": [0.8, 0.95], "weight_decay": "auto"}},
    }
    assert settle(own, BATCH, {"adam_beta1": 0.8}).trainer == {
        "max_grad_norm": 0.3,
        "bf16": True,
        "learning_rate": 1e-4,
        "adam_beta2": 0.95,
    }
    same = {"optimizer": {"type": "AdamW"}, "scheduler": {"type": "WarmupDecayLR"}}
    filled = settle(same, BATCH, {"optim": "adamw_torch", "lr_scheduler_type": "linear", "learning_rate": 0.1})
    # DeepSpeed's own defaults would stand in for what is left out.
    assert filled.config["optimizer"]["params"] == dict.fromkeys(("lr", "betas", "eps", "weight_decay"), "auto")
    assert same["optimizer"] == {"type": "AdamW"}


@pytest.mark.parametrize(
    ("own", "trainer", "message"),
    [
        ({"train_batch_size": 64}, {}, "train_batch_size is 64, but global_batch_size is 32"),
        ({"train_micro_batch_size_per_gpu": 4}, {},
         "train_micro_batch_size_per_gpu is 4, but trainer.per_device_train_batch_size is 8"),
        ({"gradient_accumulation_steps": 1}, {},
         "gradient_accumulation_steps is 1, but what follows from global_batch_size and workers is 2"),
        ({"gradient_clipping": 0.5}, {"max_grad_norm": 1.0},
         "gradient_clipping is 0.5, but trainer.max_grad_norm is 1.0"),
        ({"bf16": {"enabled": False}}, {"bf16": True}, "bf16.enabled is false, but trainer.bf16 is true"),
        ({"fp16": {"enabled": True}}, {"fp16": False}, "fp16.enabled is true, but trainer.fp16 is false"),
        ({"optimizer": {"params": {"lr": 2}}}, {"learning_rate": 1e-3},
         "optimizer.params.lr is 2, but trainer.learning_rate is 0.001"),
        ({"optimizer": {"params": {"betas": [0.9, 0.9]}}}, {"adam_beta2": 0.99},
         "optimizer.params.betas is [0.9, 0.9], but trainer.adam_beta2 is 0.99"),
        ({"optimizer": {"params": {"lr": 2}}, "scheduler": {"params": {"warmup_max_lr": 3}}}, {},
         "scheduler.params.warmup_max_lr is 3, but another key that sets learning_rate is 2"),
        ({"optimizer": {"type": "AdamW"}}, {"optim": "adafactor"},
         'optimizer.type is "AdamW", but trainer.optim is "adafactor"; remove one'),
        ({"scheduler": {"type": "WarmupLR"}}, {"lr_scheduler_type": "cosine"},
         'scheduler.type is "WarmupLR", but trainer.lr_scheduler_type is "cosine"; remove one'),
        ({"scheduler": {"params": {"warmup_num_steps": 5}}}, {"warmup_steps": 0.1},
         "scheduler.params.warmup_num_steps is 5, but trainer.warmup_steps is 0.1"),
        ({"bf16": {"enabled": True}}, {"fp16": True}, "bf16.enabled is true, and so is trainer.fp16"),
        ({"fp16": {"enabled": True}}, {"bf16": True}, "trainer.bf16 is true, and so is fp16.enabled"),
        ({"fp16": {"enabled": True}, "bf16": {"enabled": True}}, {}, "bf16.enabled is true, and so is fp16.enabled"),
        ({"zero_optimization": {"stage": 4}}, {}, "zero_optimization.stage is 4; known: 0, 1, 2, 3"),
        ({"elasticity": {"enabled": True}}, {}, "elasticity changes the global batch"),
    ],
)  # fmt: skip
def test_a_contradiction_is_refused(own: dict[str, Any], trainer: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        settle(own, BATCH, trainer)
    assert str(caught.value).startswith(f"deepspeed: {message}")


def test_every_contradiction_has_its_line() -> None:
    with pytest.raises(SpecError) as caught:
        settle({"train_batch_size": 1, "gradient_clipping": 9}, BATCH, {"max_grad_norm": 1}, name="own.json")
    assert [line.split(" ")[1] for line in str(caught.value).splitlines()] == ["train_batch_size", "gradient_clipping"]
    assert settle({"gradient_clipping": 1}, BATCH, {"max_grad_norm": 1.0}).trainer == {}


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    file.write_text('{"bf16": {"enabled": true}}')
    assert read_config(str(file)) == {"bf16": {"enabled": True}}
    for content, message in (
        ("{", "is not JSON"),
        ("[1]", "must hold a mapping"),
        ("[" * 10**5, "is not JSON"),
        (" " * 2**21, "larger than"),
    ):
        file.write_text(content)
        with pytest.raises(SpecError, match=message):
            read_config(str(file))
    with pytest.raises(SpecError, match="cannot be read: No such file"):
        read_config(str(tmp_path / "none.json"))
