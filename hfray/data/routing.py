"""Which output part a row goes to, and in which place. Knows numbers and hashes; not rows, not files.

Every row finds its part alone, from its position and its content: no list of all rows exists anywhere. A row of split s
at place r of n goes to part r * parts // n of the split's parts; r is its position in the input or, shuffled, what a
seeded permutation makes of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hfray.data.permutation import Permutation, fraction_of
from hfray.data.plan import Plan
from hfray.types import Array

MAX_GROUPS = 256
"""Segments of one draft for each split: a part reads a segment of every draft, so that very many parts share one."""


@dataclass(frozen=True, slots=True)
class Split:
    """One split of the output.

    share: of all rows, drawn by their hashes; None if it is a split of the input and has its rows from there.
    first, size: the input positions that its rows come from.
    parts: of the output.
    """

    name: str
    share: float | None
    first: int
    size: int
    parts: int


@dataclass(frozen=True, slots=True)
class Routing:
    """Splits in order; those with a share all have the same positions."""

    splits: tuple[Split, ...]
    shuffle: bool
    seed: int

    def split_of(self, position: int, row_hash: int) -> int:
        """Index of the split that a row belongs to. row_hash: 128 bits of its content and the split's seed."""
        if not self.by_hash:
            return next(i for i, split in enumerate(self.splits) if position < split.first + split.size)
        fraction = fraction_of(row_hash)
        for index in range(len(self.splits) - 1, 0, -1):  # the first split is what the others leave
            share = self.splits[index].share or 0.0
            if fraction < share:
                return index
            fraction -= share
        return 0

    def ranks(self, split: int, positions: Array) -> Array:
        """int64 [num_rows]: the places of rows of one split in its order."""
        where = self.splits[split]
        places = np.asarray(positions, np.int64) - where.first
        return Permutation(where.size, self.seed, "shuffle")(places) if self.shuffle else places

    def parts(self, split: int, ranks: Array) -> Array:
        """int64 [num_rows]: the numbers of their parts within the split."""
        where = self.splits[split]
        return np.asarray(ranks, np.int64) * where.parts // max(1, where.size)

    def group(self, split: int, part: int) -> int:
        """Which segment of a draft holds the rows of a part; several parts may share one."""
        parts = self.splits[split].parts
        return part * min(parts, MAX_GROUPS) // parts

    def sources(self, plan: Plan, split: int, part: int) -> range:
        """The shards of the input that may hold rows of a part."""
        where = self.splits[split]
        first, last = where.first, where.first + where.size
        if not self.shuffle:
            first, last = (where.first - (-each * where.size // where.parts) for each in (part, part + 1))
        return shards_between(plan, first, last)

    @property
    def by_hash(self) -> bool:
        """Whether a row's split depends on its content."""
        return self.splits[0].share is not None


def shards_between(plan: Plan, first: int, last: int) -> range:
    """The shards that hold the positions `[first, last)`."""
    return range(_shard_at(plan, first), _shard_at(plan, last - 1) + 1) if first < last else range(0)


def _shard_at(plan: Plan, position: int) -> int:
    """The shard that holds a position, by bisection."""
    low, high = 0, plan.num_shards - 1
    while low < high:
        middle = (low + high + 1) // 2
        if plan.shard(middle).first_position <= position:
            low = middle
        else:
            high = middle - 1
    return low


def splits_by_share(shares: Sequence[tuple[str, float]], num_rows: int, shard_rows: int) -> tuple[Split, ...]:
    """train, then the others with their shares of the rows; parts about as large as the shards of the input."""
    num_shards = max(1, -(-num_rows // shard_rows))
    rest = 1 - sum(share for _, share in shares)
    return tuple(
        Split(name, share, 0, num_rows, max(1, round(share * num_shards))) for name, share in (("train", rest), *shares)
    )
