"""What a step must not do. What it must is shown by whole runs (tests/kinds/test_train.py)."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hfray.training.counting import Counts
from hfray.training.trainer import RunTrainer, reduce_sparingly
from tests.training import reduction_job
from tests.training.process_groups import run_group


def test_a_step_does_not_wait_for_the_device() -> None:
    trainer = RunTrainer.__new__(RunTrainer)
    trainer.model_accepts_loss_kwargs = False
    trainer.compute_loss_func = None
    trainer._shifted = False
    trainer._items = deque()
    trainer._count = lambda batch: Counts(batch["input_ids"].numel())
    trainer._counted = torch.zeros(len(Counts._fields), dtype=torch.int64)
    batch = {"input_ids": torch.ones(2, 3, dtype=torch.int64), "labels": torch.tensor([0, 1])}
    # No value of a tensor on this device can be looked at.
    batches, _ = trainer.get_batch_samples(iter([batch, batch]), 2, torch.device("meta"))
    assert (len(batches), list(trainer._items), trainer._counted[0]) == (2, [2, 2], 12)
    assert trainer._num_items.is_meta


@pytest.mark.parametrize(
    ("optimizer", "reduces"),
    [(torch.optim.SGD([torch.zeros(1)]), False), (object(), True)],  # ZeRO's own keep count of reductions
)
def test_one_rank_has_nobody_to_agree_with(optimizer: Any, reduces: bool) -> None:
    engine = SimpleNamespace(optimizer=optimizer, enable_backward_allreduce=True)
    reduce_sparingly(engine, 1)
    assert engine.enable_backward_allreduce is reduces


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_are_added_up_a_bucket_at_a_time(precision: str, tmp_path: Path) -> None:
    for whole, parted in run_group(reduction_job.compare, 2, {"precision": precision}, tmp_path / "group"):
        assert parted["weights"] == whole["weights"]
        assert sum(parted["sent"]) == sum(whole["sent"])
        assert len(whole["sent"]) == reduction_job.STEPS
        most = reduction_job.BUCKET + parted["largest"]
        assert max(parted["sent"]) <= most < min(whole["sent"])
