"""The examples of one split of a tokenised folder, by number. Knows parts, blocks and a cache of bounded size; not in
which order examples are wanted, not what is made of them.

Examples are numbered over the whole split, in the order of its parts. How many each part holds stands in the manifest,
so that opening a split costs two small files, however many parts there are. Not for several threads at once.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from hfray.data.ledger import SUCCESS
from hfray.data.storage import Storage
from hfray.data.tokens import Tokens, read_tokens
from hfray.errors import DataError, SpecError
from hfray.spec.problems import close_or_known
from hfray.training.blocks import Block, PartReader, Spool, block_of, open_part
from hfray.training.order import Draw
from hfray.types import Array, Column, Ragged

CACHE_BYTES = 256 << 20
MAX_OPEN_PARTS = 16


@dataclass(frozen=True, slots=True)
class Example:
    """One example. columns: by name, int or float arrays [num_tokens] (pairs: [num_tokens, 2]), or one plain value."""

    number: int
    columns: Mapping[str, Any]
    epoch: int = 0
    """For what is drawn anew in each epoch."""


class TokenExamples:
    """A torch-style dataset (`len`, `[number]`, `__getitems__`) over one split. Picklable, without its cache."""

    def __init__(
        self,
        path: str,
        split: str = "train",
        *,
        columns: Sequence[str] | None = None,
        cache_bytes: int = CACHE_BYTES,
        spool: Path | None = None,
    ) -> None:
        """columns: those to read, None for all; cache_bytes: most memory of blocks kept, the one in use apart.

        spool: a folder on a local disk, one for all processes of a machine: blocks are left there when they were read,
        so that none is decoded (or fetched) twice. Without it, examples in a random order over more than `cache_bytes`
        cost a block each. Raises SpecError: no tokenised folder, no such split or column; DataError: damaged.
        """
        self.path = path
        self.split = split
        self.tokens: Tokens = read_tokens(path)
        self._storage = Storage(path)
        self._cache_bytes = cache_bytes
        self.columns = self._checked_columns(columns)
        manifest = self._storage.read_bytes(SUCCESS)
        self._parts, counts = self._listed_parts(manifest)
        self._starts = [0, *accumulate(counts)]
        self._spool_folder = None
        if spool is not None:
            # The manifest has the checksum of every part, so a folder that was made anew is spooled anew.
            digest = hashlib.sha256(json.dumps([split, self.columns]).encode() + manifest).hexdigest()
            self._spool_folder = spool / digest[:32]
        self._forget()

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, number: int) -> Example:
        (example,) = self.take([number])
        return example

    def __getitems__(self, draws: Sequence[Draw]) -> list[Example]:
        """What torch's DataLoader asks for: a batch of a sampler's draws."""
        return self.take([draw.number for draw in draws], [draw.epoch for draw in draws])

    def take(self, numbers: Sequence[int], epochs: Sequence[int] | None = None) -> list[Example]:
        """The examples of these numbers, in this order; each block that holds some is looked up once."""
        found: dict[int, Example] = {}
        for place, row, block in self._looked_up(numbers):
            columns = {name: _value(column, row) for name, column in block.columns.items()}
            found[place] = Example(numbers[place], columns, 0 if epochs is None else epochs[place])
        return [found[place] for place in range(len(numbers))]

    def lengths(self, numbers: Sequence[int], columns: Sequence[str]) -> Array:
        """int64 [len(numbers), len(columns)]: how many entries the lists of these columns have."""
        found = np.zeros((len(numbers), len(columns)), np.int64)
        for place, row, block in self._looked_up(numbers):
            found[place] = [len(block.columns[name][row]) for name in columns]
        return found

    def close(self) -> None:
        """Closes files and forgets what was cached; the next example opens them again."""
        for reader in self._open.values():
            reader.close()
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key not in _CACHES}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    @property
    def parts(self) -> tuple[str, ...]:
        """The split's files, in order, below the folder."""
        return tuple(self._parts)

    @property
    def cached_bytes(self) -> int:
        return self._cached_bytes

    def _forget(self) -> None:
        self._open: OrderedDict[int, PartReader] = OrderedDict()
        self._blocks: OrderedDict[tuple[int, int], Block] = OrderedDict()
        self._block_starts: dict[int, Sequence[int]] = {}
        self._cached_bytes = 0
        self._spool = None if self._spool_folder is None else Spool(self._spool_folder)

    def _checked_columns(self, columns: Sequence[str] | None) -> tuple[str, ...]:
        known = self.tokens.columns
        unknown = [name for name in columns or () if name not in known]
        if unknown:
            raise SpecError(f"{self.path}: has no column {unknown[0]!r}{close_or_known(unknown[0], known)}")
        return tuple(known if columns is None else columns)

    def _listed_parts(self, content: bytes) -> tuple[list[str], list[int]]:
        names = [each.name for each in self.tokens.splits]
        if self.split not in names:
            raise SpecError(f"{self.path}: has no split {self.split!r}{close_or_known(self.split, names)}")
        try:
            manifest = json.loads(content)
            entries = [dict(zip(manifest["part_columns"], part, strict=True)) for part in manifest["parts"]]
            mine = [entry for entry in entries if entry["name"].startswith(f"{self.split}/")]
            parts = [f"data/{entry['name']}" for entry in mine]
            counts = [int(entry["rows"]) for entry in mine]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{self._storage.url(SUCCESS)}: is damaged ({error}): tokenise again") from None
        return parts, counts

    def _looked_up(self, numbers: Sequence[int]) -> Iterator[tuple[int, int, Block]]:
        """Each number's place among them, its place in a block and the block, one block after the other."""
        for place in sorted(range(len(numbers)), key=numbers.__getitem__):
            number = numbers[place]
            if not 0 <= number < len(self):
                raise IndexError(f"example {number} of {len(self):,} in split {self.split} of {self.path}")
            yield place, *self._block_of(number)

    def _block_of(self, number: int) -> tuple[int, Block]:
        """The block that holds an example, and the example's place in it."""
        part = bisect_right(self._starts, number) - 1
        row = number - self._starts[part]
        if part not in self._block_starts:
            starts = self._reader(part).starts
            expected = self._starts[part + 1] - self._starts[part]
            if starts[-1] != expected:
                raise DataError(
                    f"{self._storage.url(self._parts[part])}: holds {starts[-1]:,} examples, not {expected:,} as when "
                    "it was written: copy the folder again, or tokenise again"
                )
            self._block_starts[part] = starts
        starts = self._block_starts[part]
        block = bisect_right(starts, row) - 1
        return row - starts[block], self._block(part, block)

    def _block(self, part: int, block: int) -> Block:
        key = (part, block)
        found = self._blocks.get(key)
        if found is not None:
            self._blocks.move_to_end(key)
            return found
        found = self._fetched(part, block)
        while self._blocks and self._cached_bytes + found.num_bytes > self._cache_bytes:
            self._cached_bytes -= self._blocks.popitem(last=False)[1].num_bytes
        self._blocks[key] = found
        self._cached_bytes += found.num_bytes
        return found

    def _fetched(self, part: int, block: int) -> Block:
        name = f"{part:08d}-{block:05d}"
        spooled = None if self._spool is None else self._spool.get(name)
        if spooled is not None:
            return spooled
        reader = self._reader(part)
        table = reader.read(block)
        if self._spool is None or reader.mapped:
            return block_of(table, mapped=reader.mapped)
        self._spool.put(name, table)
        return self._spool.get(name) or block_of(table, mapped=False)

    def _reader(self, part: int) -> PartReader:
        reader = self._open.pop(part, None) or open_part(self._storage, self._parts[part], self.columns)
        self._open[part] = reader
        if len(self._open) > MAX_OPEN_PARTS:
            self._open.popitem(last=False)[1].close()
        return reader


_CACHES = ("_open", "_blocks", "_block_starts", "_cached_bytes", "_spool")


def _value(column: Column, row: int) -> Any:
    """A copy: a view would keep its whole block alive."""
    if isinstance(column, Ragged):
        return column[row].copy()
    return column[row]
