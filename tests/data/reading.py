"""Indexes a file and reads all of it back by shards, as a job does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from hfray.data.base import DEFAULT_OPTIONS, FileIndex, ReadOptions, ShardRows
from hfray.data.formats import index_file, read_shard
from hfray.data.listing import list_files
from hfray.data.plan import Plan
from hfray.errors import RowError


@dataclass
class Everything:
    """All shards of an input, joined."""

    plan: Plan
    indexes: list[FileIndex]
    shards: list[ShardRows]

    @property
    def table(self) -> pa.Table:
        return pa.concat_tables([shard.table for shard in self.shards])

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [row for shard in self.shards for row in shard.rows()]

    @property
    def errors(self) -> dict[int, RowError]:
        found: dict[int, RowError] = {}
        for number, shard in enumerate(self.shards):
            first = self.plan.shard(number).first_position
            found.update({first + row: error for row, error in shard.errors.items()})
        return found

    @property
    def error_types(self) -> dict[int, str]:
        return {row: error.type for row, error in self.errors.items()}


def read_all(
    paths: Sequence[str | Path],
    format: str = "auto",
    *,
    shard_rows: int = 3,
    spool: str | Path = "/nonexistent",
    options: ReadOptions = DEFAULT_OPTIONS,
    limit: int | None = None,
    split: str | None = None,
) -> Everything:
    files = list_files([str(path) for path in paths], format, split=split)
    # Through bytes, as a cached index comes back.
    indexes = [FileIndex.from_bytes(index_file(file, shard_rows, str(spool), options).to_bytes()) for file in files]
    plan = Plan(indexes, limit)
    shards = [read_shard(plan.shard(number), plan.schema) for number in range(plan.num_shards)]
    for number, shard in enumerate(shards):
        assert shard.table.num_rows == plan.shard(number).num_rows
        assert shard.table.schema.equals(plan.schema)
        shard.table.validate(full=True)
        assert len(shard.rows()) == shard.num_rows
    return Everything(plan, indexes, shards)
