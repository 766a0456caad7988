from __future__ import annotations

import pytest

from hfray.errors import SpecError
from hfray.training.deepspeed import BatchShape, config_for
from hfray.training.savable import OPTIMIZERS, REFUSED, check_savable
from hfray.training.size import ModelSize

SIZE = ModelSize(1000, 1000, 800, 100, 2, 16, 2, 61)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("optim", OPTIMIZERS)
def test_what_hfray_makes_can_be_saved(stage, optim):
    for offload in ("none", "optimizer", "all"):
        config = config_for(stage, BatchShape(8, 4, 1), SIZE, precision="bf16", max_grad_norm=1.0, offload=offload)
        check_savable(optim, config)


@pytest.mark.parametrize("optim", ["adamw_8bit", "adafactor", "galore_adamw", "lomo"])
def test_optimizers_with_other_states_are_refused_with_those_that_will_do(optim):
    with pytest.raises(SpecError, match=rf"trainer\.optim: {optim} .* use adamw_torch"):
        check_savable(optim, {})


def test_deepspeeds_own_optimizer_stands_for_the_trainers():
    check_savable("adafactor", {"optimizer": {"type": "AdamW", "params": {"lr": 1e-3}}})
    with pytest.raises(SpecError, match=r"optimizer\.type is OneBitAdam.*use Adam or AdamW"):
        check_savable("adamw_torch", {"optimizer": {"type": "OneBitAdam"}})


VALUES = {
    "zero_optimization.offload_optimizer.device": "nvme",
    "zero_optimization.offload_param.device": "nvme",
    "zero_optimization.offload_optimizer.ratio": 0.5,
    "zero_optimization.zero_hpz_partition_size": 8,
    "zero_optimization.mics_shard_size": 4,
    "tensor_parallel.autotp_size": 2,
    "sequence_parallel_size": 2,
}


@pytest.mark.parametrize("key", REFUSED)
def test_features_that_cannot_be_saved_are_refused_by_their_key(key):
    config = {"bf16": {"enabled": True}}
    for value, refused in ((VALUES.get(key, {"enabled": True}), True), (None, False), ("auto", False), ({}, False)):
        if refused or key not in VALUES:
            nested = value
            for part in reversed(key.split(".")[1:]):
                nested = {part: nested}
            if refused:
                with pytest.raises(SpecError, match=key.replace(".", r"\.")):
                    check_savable("adamw_torch", config | {key.split(".")[0]: nested})
            else:
                check_savable("adamw_torch", config | {key.split(".")[0]: nested})


def test_all_that_is_wrong_is_said_at_once():
    config = {"zero_optimization": {"zenflow": {"topk_ratio": 0.1}, "mics_shard_size": 2}}
    with pytest.raises(SpecError) as caught:
        check_savable("adafactor", config)
    assert len(str(caught.value).splitlines()) == 3
