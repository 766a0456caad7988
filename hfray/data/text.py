"""Plain text: one row per line, in the column `text`; `.gz` or not. Blank lines are skipped (they are no rows)."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from hfray.data import utf8
from hfray.data.base import FileIndex, FileRef, ReadOptions, Shard, ShardRows
from hfray.data.conform import conform
from hfray.data.records import lines
from hfray.data.scan import index_records, read_records
from hfray.errors import RowError

_SCHEMA = pa.schema([("text", pa.string())])


def index(file: FileRef, shard_rows: int, spool_dir: str, options: ReadOptions) -> FileIndex:
    """Counts the lines and finds the shards' first ones."""
    return replace(index_records(file, shard_rows, spool_dir, options, lines, lambda record: True), schema=_SCHEMA)


def read(shard: Shard, schema: pa.Schema) -> ShardRows:
    texts: list[str] = []
    errors: dict[int, RowError] = {}
    for number, record in enumerate(read_records(shard, lines)):
        text, repaired = utf8.decode(record)
        texts.append(text)
        if repaired:
            errors[number] = utf8.invalid_text("text")
    return ShardRows(conform(pa.table({"text": texts}, schema=_SCHEMA), schema, shard.file.url), errors)
