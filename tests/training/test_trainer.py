"""What a step must not do. What it must is shown by whole runs (tests/kinds/test_train.py)."""

from __future__ import annotations

from collections import deque

import torch

from hfray.training.counting import Counts
from hfray.training.trainer import RunTrainer


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
