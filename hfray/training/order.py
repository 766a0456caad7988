"""In which order examples are learned: one endless stream of draws, cut into global batches, dealt out to the ranks.
Knows numbers only; not what an example is, not how it is read.

Everything is counted in samples. Epoch e is a seeded permutation of all examples, and the stream is epoch after epoch:
the last global batch of an epoch that is not full goes on with the next epoch's first examples, so that every optimizer
step has the same number of samples, and nothing is dropped or doubled. Global batch k is the stream's samples
[k * global_batch_size, (k + 1) * global_batch_size), whatever the number of ranks is; a run that goes on at sample p,
with any number of ranks, sees exactly the samples from p.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hfray.data.permutation import Permutation
from hfray.training.shares import even_shares
from hfray.types import Array

_BLOCK_SAMPLES = 1 << 16
"""Samples that are drawn at a time: a permutation is fast over arrays only."""


class Draw(NamedTuple):
    """One sample: an example, in the epoch that it is drawn for."""

    epoch: int
    number: int


@dataclass(frozen=True, slots=True)
class SampleOrder:
    """The stream of draws. With `shuffle` false every epoch is in the order of the numbers.

    Which example stands where depends on `num_examples` and `seed` alone: no machine, no version of numpy. Checkpoints
    keep a position in this stream, so its values are pinned in the tests.
    """

    num_examples: int
    seed: int = 0
    shuffle: bool = True

    def __post_init__(self) -> None:
        if self.num_examples < 1:
            raise ValueError("there is nothing to draw from: no examples")

    def draws(self, start: int, stop: int) -> tuple[Array, Array]:
        """Epochs and example numbers, int64 [stop - start], of the samples `start` to `stop` of the stream."""
        positions = np.arange(start, stop, dtype=np.int64)
        epochs, places = np.divmod(positions, self.num_examples)
        numbers = places.copy()
        if self.shuffle and len(positions):
            for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
                first = epoch * self.num_examples - start
                mine = slice(max(0, first), first + self.num_examples)
                numbers[mine] = Permutation(self.num_examples, self.seed, f"epoch {epoch}")(places[mine])
        return epochs, numbers


@dataclass(frozen=True, slots=True)
class MicroBatches:
    """What one rank draws: torch's batch sampler, a list of draws for each micro-batch.

    Within a global batch the micro-batches of all ranks follow each other: first the first one of each rank, then the
    second one of each. Where the samples differ in length they are cut by it (`shares`), and `micro_batch_size` is the
    mean; else they stay in the order of the stream. Iterating starts at `position` again each time; `len` counts from
    there. The samples [position, stop) of the stream make up whole global batches of all ranks.
    """

    order: SampleOrder
    micro_batch_size: int
    accumulation: int
    """Micro-batches of one rank in a global batch."""
    world_size: int
    rank: int
    stop: int
    """The end of the run, in samples."""
    position: int = 0
    """Samples that were learned before."""
    lengths: Callable[[Array], Array] | None = None
    """Of the examples of these numbers, int64 [num_examples, num_columns]; None: all are of one length."""

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank {self.rank} of {self.world_size}")
        if not 0 <= self.position <= self.stop:
            raise ValueError(f"position {self.position} is outside of the run, 0 to {self.stop}")
        if (self.stop - self.position) % self.global_batch_size:
            raise ValueError(
                f"samples {self.position} to {self.stop} are no whole number of global batches of "
                f"{self.global_batch_size}"
            )

    @property
    def global_batch_size(self) -> int:
        return self.micro_batch_size * self.world_size * self.accumulation

    def __len__(self) -> int:
        return (self.stop - self.position) // self.global_batch_size * self.accumulation

    def __iter__(self) -> Iterator[list[Draw]]:
        step = self.global_batch_size
        whole = max(1, _BLOCK_SAMPLES // step) * step
        for start in range(self.position, self.stop, whole):
            epochs, numbers = self.order.draws(start, min(start + whole, self.stop))
            for first in range(0, len(numbers), step):
                for places in self._shares(numbers[first : first + step]):
                    mine = first + places
                    yield [Draw(*draw) for draw in zip(epochs[mine].tolist(), numbers[mine].tolist(), strict=True)]

    def _shares(self, numbers: Array) -> list[Array]:
        """The places of this rank's micro-batches in a global batch."""
        count = self.world_size * self.accumulation
        if self.lengths is None or count == 1:
            shares = np.split(np.arange(len(numbers)), count)
        else:
            shares = even_shares(self.lengths(numbers), count)
        return shares[self.rank :: self.world_size]


def evaluation_share(num_examples: int, world_size: int, rank: int) -> range:
    """The examples that one rank evaluates: over all ranks each example once, in contiguous shares of nearly one size.
    A share may be empty, so ranks must not wait for each other in it."""
    return range(num_examples * rank // world_size, num_examples * (rank + 1) // world_size)
