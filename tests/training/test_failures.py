"""Which failures of a worker are told as what they are, and which are left to be tried again."""

from __future__ import annotations

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
            ValueError(
                "Please correct the following DeepSpeed config values that mismatch TrainingArguments values:\n- a"
            ),
            SpecError,
            r"^deepspeed: Please correct .* - a$",
        ),
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
