"""Which failures of a worker are told as what they are, and which are left to be tried again."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from hfray.errors import DataError, EngineError, HfrayError, SpecError
from hfray.training.failures import told


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory.\nTried"),
            EngineError,
            r"out of memory; .*\(CUDA out of memory\. T",
        ),
        (MemoryError(), EngineError, r"per_device_train_batch_size"),
        (ImportError("liger-kernel is not available"), SpecError, r"not installed where .* \(liger-kernel is not av"),
        (
            OSError(28, "full", "/out/x"),
            DataError,
            r"^cannot write /out/x: no space left: .*the same command then goes on",
        ),
        (OSError(122, "quota"), DataError, r"^cannot write to a disk where a worker runs: the disk quota is used up"),
        (DataError("part-1 is damaged"), DataError, r"^part-1 is damaged$"),
    ],
)
def test_what_would_come_again_is_told(error: Exception, kind: type[HfrayError], message: str) -> None:
    with pytest.raises(kind, match=message), told():
        raise error


@pytest.mark.parametrize("error", [RuntimeError("NCCL error: remote process exited"), OSError(5, "x")])
def test_what_may_not_come_again_is_left_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, told():
        raise error
    assert caught.value is error


def test_an_authors_count_of_steps_is_told_as_transformers_says_it() -> None:
    from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

    config = HfTrainerDeepSpeedConfig({"scheduler": {"type": "WarmupDecayLR", "params": {"total_num_steps": 5}}})
    arguments = SimpleNamespace(get_warmup_steps=lambda num_steps: 0)
    with pytest.raises(SpecError, match=r"^deepspeed: Please correct .*total_num_steps=5.*=9"), told():
        config.trainer_config_finalize(arguments, torch.nn.Linear(1, 1), 9)
