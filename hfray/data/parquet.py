"""Parquet: indexed by its footer, read by row ranges that may span row groups or be a slice of one.

Knows footers and row groups; not what the columns mean. Reading a slice out of a long row group has to decode what
lies before it, so the place where a reader stopped is kept for the shard that follows.
"""

from __future__ import annotations

import atexit
import hashlib
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from hfray.data import utf8
from hfray.data.base import FileIndex, FileRef, ReadOptions, Shard, ShardRows, check_num_rows
from hfray.data.conform import conform, plain_schema
from hfray.data.extensions import check_parquet_footer
from hfray.data.storage import storage_for
from hfray.data.store_errors import translated
from hfray.errors import DataError

_MAGIC = b"PAR1"
_BUFFER_BYTES = 64 << 10
_BATCH_ROWS = 1024
_MAX_CURSORS = 2


def index(file: FileRef, shard_rows: int, spool_dir: str, options: ReadOptions) -> FileIndex:
    """Reads the footer only; it is also what the digest is of."""
    with _open(file) as stream:
        footer = _footer(stream, file)
        with _reading(file):
            parquet = pq.ParquetFile(stream, arrow_extensions_enabled=False)
            return FileIndex(
                file=file,
                shard_rows=shard_rows,
                num_rows=parquet.metadata.num_rows,
                schema=_schema(parquet),
                digest=hashlib.blake2b(footer, digest_size=20).hexdigest(),
                options=options,
            )


def read(shard: Shard, schema: pa.Schema) -> ShardRows:
    """Decodes only the row groups that hold the rows."""
    if not shard.num_rows:
        return ShardRows(schema.empty_table())
    cursor = _CURSORS.take(shard)
    try:
        with _reading(shard.file):
            table = cursor.advance(shard.first_row, shard.num_rows)
            check_num_rows(shard, table.num_rows)
            table, errors = utf8.repair_table(table)
            table = conform(table, schema, shard.file.url)
    except BaseException:
        cursor.close()
        raise
    _CURSORS.put(shard.file, cursor)
    return ShardRows(table, errors)


class _Cursor:
    """An open file and the place in it up to which it was decoded. One thread uses it at a time."""

    def __init__(self, file: FileRef) -> None:
        self._stream = _open(file)
        try:
            _footer(self._stream, file)
            with _reading(file):
                # Column chunks are fetched together where each request costs a round trip.
                self._parquet = pq.ParquetFile(
                    self._stream, pre_buffer="://" in file.url, arrow_extensions_enabled=False
                )
        except BaseException:
            self._stream.close()
            raise
        self._schema = _schema(self._parquet)
        metadata = self._parquet.metadata
        counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._starts = [0, *accumulate(counts)]
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._pending: list[pa.RecordBatch] = []
        self.row = -1
        """The next row that `_pending` and `_batches` give; -1 before the first."""

    def advance(self, first_row: int, num_rows: int) -> pa.Table:
        """The rows from `first_row`, fewer only at the end of the file."""
        group = bisect_right(self._starts, first_row) - 1
        start = self._starts[group]
        if not start <= self.row <= first_row:
            self._batches = self._iterate(range(group, len(self._starts) - 1))
            self._pending, self.row = [], start
        self._collect(first_row - self.row)
        return pa.Table.from_batches(self._collect(num_rows), self._schema).combine_chunks()

    def close(self) -> None:
        self._batches, self._pending = iter(()), []
        self._parquet.close(force=True)
        self._stream.close()

    def _iterate(self, groups: range) -> Iterator[pa.RecordBatch]:
        """Row group by row group, so that none is fetched before it is wanted."""
        for group in groups:
            for batch in self._parquet.iter_batches(_BATCH_ROWS, row_groups=[group], use_threads=False):
                yield from conform(pa.Table.from_batches([batch]), self._schema, "").to_batches()

    def _collect(self, num_rows: int) -> list[pa.RecordBatch]:
        taken: list[pa.RecordBatch] = []
        while num_rows > 0:
            batch = self._pending.pop() if self._pending else next(self._batches, None)
            if batch is None:
                break
            if batch.num_rows > num_rows:
                self._pending.append(batch.slice(num_rows))
                batch = batch.slice(0, num_rows)
            num_rows -= batch.num_rows
            self.row += batch.num_rows
            taken.append(batch)
        return taken


@dataclass(frozen=True, slots=True)
class _Key:
    url: str
    version: str


class _Cursors:
    """The last few cursors of this process; one in use is not among them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Key, _Cursor] = OrderedDict()

    def take(self, shard: Shard) -> _Cursor:
        with self._lock:
            cursor = self._kept.pop(_Key(shard.file.url, shard.file.version), None)
        return cursor or _Cursor(shard.file)

    def put(self, file: FileRef, cursor: _Cursor) -> None:
        with self._lock:
            replaced = self._kept.pop(_Key(file.url, file.version), None)
            self._kept[_Key(file.url, file.version)] = cursor
            dropped = [replaced] if replaced else []
            if len(self._kept) > _MAX_CURSORS:
                dropped.append(self._kept.popitem(last=False)[1])
        for each in dropped:
            each.close()

    def clear(self) -> None:
        with self._lock:
            kept, self._kept = list(self._kept.values()), OrderedDict()
        for each in kept:
            each.close()


_CURSORS = _Cursors()


def close_readers() -> None:
    """Closes the files that are kept open for the shards that may follow."""
    _CURSORS.clear()


atexit.register(close_readers)


def _schema(parquet: Any) -> pa.Schema:
    return plain_schema(parquet.schema_arrow)


def _open(file: FileRef) -> BinaryIO:
    storage, path = storage_for(file.url)
    return storage.open(path, _BUFFER_BYTES)


def _footer(stream: BinaryIO, file: FileRef) -> bytes:
    """The footer's bytes, checked before Arrow's reader sees them; the stream is rewound."""
    with translated(file.url, "read"):
        size = stream.seek(0, 2)
        stream.seek(max(0, size - 8))
        tail = stream.read(8)
        length = int.from_bytes(tail[:4], "little")
        if size < 12 or tail[4:] != _MAGIC or length > size - 12:
            encrypted = tail[4:] == b"PARE"
            raise DataError(
                f"{file.url}: "
                + ("is encrypted Parquet, which hfray does not read" if encrypted else "is truncated or not Parquet")
                + (": copy it here again" if not encrypted else "")
            )
        stream.seek(size - 8 - length)
        footer = stream.read(length)
        stream.seek(0)
    check_parquet_footer(footer, file.url)
    return footer


@contextmanager
def _reading(file: FileRef) -> Iterator[None]:
    """Arrow's errors about a file's content as a DataError that names it."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{file.url}: damaged Parquet ({first}): copy it here again") from error
