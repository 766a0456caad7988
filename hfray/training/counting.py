"""How many tokens a micro-batch holds, with padding and without. Knows what each collator makes; nothing of models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hfray.tasks.features.base import IGNORED
from hfray.training.batches import Collator, Packed, Targets

Count = Callable[[Mapping[str, Any]], tuple[int, int]]
"""Of a batch of tensors: positions without padding, and all that are computed."""


def count_for(collator: Collator) -> Count:
    """What counts the batches that a collator makes."""
    if isinstance(collator, Packed):
        return _packed
    return _both_sides if isinstance(collator, Targets) else _masked


def _masked(batch: Mapping[str, Any]) -> tuple[int, int]:
    return int(batch["attention_mask"].sum()), batch["input_ids"].numel()


def _both_sides(batch: Mapping[str, Any]) -> tuple[int, int]:
    """An encoder's positions and its decoder's."""
    used, computed = _masked(batch)
    return used + int((batch["labels"] != IGNORED).sum()), computed + batch["labels"].numel()


def _packed(batch: Mapping[str, Any]) -> tuple[int, int]:
    """Padding stands at the end of a sequence, behind the last token that has a label."""
    labelled = (batch["labels"] != IGNORED).flip(-1)
    behind = labelled.int().argmax(-1) * labelled.any(-1) + labelled.shape[-1] * ~labelled.any(-1)
    computed: int = batch["input_ids"].numel()
    return computed - int(behind.sum()), computed
