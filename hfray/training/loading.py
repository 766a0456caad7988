"""Examples, an order and a collator as torch's DataLoader. Knows how the three meet; nothing of what they know.

A loader is complete as it is: each rank has its own draws, so nothing may shard it again (accelerate's `prepare` does).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hfray.models.packed_attention import Separation, packed_inputs
from hfray.training.batches import Collator, to_tensors
from hfray.training.order import Draw, MicroBatches
from hfray.training.tokens import Example, TokenExamples


@dataclass(frozen=True, slots=True)
class Collate:
    """Examples to what the model is called with. separation: how a model is told documents apart in packed sequences;
    dtype: the model's, for a mask. Picklable."""

    collator: Collator
    separation: Separation | None = None
    dtype: Any = None

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        batch = to_tensors(self.collator(examples))
        if self.separation is not None:
            batch |= packed_inputs(batch["position_ids"], self.separation, self.dtype)
        return batch


def train_loader(examples: TokenExamples, batches: MicroBatches, collate: Collate) -> Any:
    """One rank's micro-batches from the position of `batches`; its `len` counts from there too."""
    return _loader(examples, batches, collate)


def evaluation_loader(examples: TokenExamples, numbers: Sequence[int], micro_batch_size: int, collate: Collate) -> Any:
    """The examples of these numbers in this order, in batches of which the last may be smaller."""
    draws = [Draw(0, number) for number in numbers]
    return _loader(
        examples,
        [draws[first : first + micro_batch_size] for first in range(0, len(draws), micro_batch_size)],
        collate,
    )


def _loader(examples: TokenExamples, batches: Iterable[list[Draw]], collate: Collate) -> Any:
    import torch
    from torch.utils.data import DataLoader

    # A loader takes a seed for its workers from the global generator each time it is iterated; dropout would differ
    # between a run and one that was resumed.
    return DataLoader(
        examples,  # a dataset by its methods
        batch_sampler=batches,
        collate_fn=collate,
        generator=torch.Generator(),
    )
