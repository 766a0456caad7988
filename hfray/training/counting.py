"""How many tokens a micro-batch holds, with padding and without. Knows what each collator makes; nothing of models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from hfray.tasks.features.base import IGNORED
from hfray.training.batches import Collator, Packed, Targets


class Counts(NamedTuple):
    """Of some batches; added up part by part."""

    tokens: int = 0
    """Positions without padding, an encoder's and a decoder's together."""
    padded_tokens: int = 0
    """Positions that are computed."""
    squares: int = 0
    """Squared lengths of the rows, of an encoder-decoder's sources: attention goes by them."""
    target_tokens: int = 0
    """Of `tokens`, those of targets."""
    target_squares: int = 0

    @property
    def mean_length(self) -> float:
        """Of a row (a source), as a mean over its positions."""
        sources = self.tokens - self.target_tokens
        return self.squares / sources if sources else 0.0

    @property
    def mean_target_length(self) -> float:
        return self.target_squares / self.target_tokens if self.target_tokens else 0.0


Count = Callable[[Mapping[str, Any]], Counts]
"""Of a batch of tensors."""


def count_for(collator: Collator) -> Count:
    """What counts the batches that a collator makes."""
    if isinstance(collator, Packed):
        return _packed
    return _both_sides if isinstance(collator, Targets) else _masked


def _masked(batch: Mapping[str, Any]) -> Counts:
    lengths = batch["attention_mask"].sum(-1)
    return Counts(int(lengths.sum()), batch["input_ids"].numel(), int((lengths**2).sum()))


def _both_sides(batch: Mapping[str, Any]) -> Counts:
    sources, targets = _masked(batch), (batch["labels"] != IGNORED).sum(-1)
    num_targets = int(targets.sum())
    return Counts(
        sources.tokens + num_targets,
        sources.padded_tokens + batch["labels"].numel(),
        sources.squares,
        num_targets,
        int((targets**2).sum()),
    )


def _packed(batch: Mapping[str, Any]) -> Counts:
    """Padding stands at the end of a sequence, behind the last token that has a label. All of the row is attended to,
    whatever a mask hides."""
    labelled = (batch["labels"] != IGNORED).flip(-1)
    length = labelled.shape[-1]
    behind = labelled.int().argmax(-1) * labelled.any(-1) + length * ~labelled.any(-1)
    computed: int = batch["input_ids"].numel()
    tokens = computed - int(behind.sum())
    return Counts(tokens, computed, tokens * length)
