"""Arrow IPC streams, as `datasets.Dataset.save_to_disk` writes them. Knows messages and record batches.

A shard starts inside a record batch: its entry is the batch's first byte and the rows to skip.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from hfray.data import utf8
from hfray.data.base import FileIndex, FileRef, ReadOptions, Shard, ShardRows, check_num_rows
from hfray.data.conform import conform, plain_schema
from hfray.data.extensions import check_schema_bytes
from hfray.data.storage import storage_for
from hfray.errors import DataError


def index(file: FileRef, shard_rows: int, spool_dir: str, options: ReadOptions) -> FileIndex:
    """Reads every message once, for the row counts and the digest."""
    offsets: list[int] = []
    skips: list[int] = []
    digest = hashlib.blake2b(digest_size=20)
    num_rows = 0
    with _open(file) as stream, _reading(file):
        schema = _read_schema(stream, file)
        digest.update(schema.serialize())
        start = stream.tell()
        for message in _messages(stream):
            digest.update(message.metadata)
            digest.update(message.body)
            batch_rows = pa.ipc.read_record_batch(message, schema).num_rows
            for row in range(-(-num_rows // shard_rows) * shard_rows, num_rows + batch_rows, shard_rows):
                offsets.append(start)
                skips.append(row - num_rows)
            num_rows += batch_rows
            start = stream.tell()
    return FileIndex(
        file=file,
        shard_rows=shard_rows,
        num_rows=num_rows,
        schema=plain_schema(schema),
        digest=digest.hexdigest(),
        offsets=np.array([*offsets, start], np.int64),
        skips=np.array(skips, np.int64),
        options=options,
    )


def read(shard: Shard, schema: pa.Schema) -> ShardRows:
    """Reads the record batches that hold the rows."""
    if not shard.num_rows:
        return ShardRows(schema.empty_table())
    with _open(shard.file) as stream, _reading(shard.file):
        own = _read_schema(stream, shard.file)
        stream.seek(shard.start_byte)
        batches: list[pa.RecordBatch] = []
        wanted = shard.skip_rows + shard.num_rows
        for message in _messages(stream):
            batches.append(pa.ipc.read_record_batch(message, own))
            wanted -= batches[-1].num_rows
            if wanted <= 0:
                break
        table = pa.Table.from_batches(batches, own).slice(shard.skip_rows, shard.num_rows).combine_chunks()
        check_num_rows(shard, table.num_rows)
        table, errors = utf8.repair_table(table)
        return ShardRows(conform(table, schema, shard.file.url), errors)


def _read_schema(stream: BinaryIO, file: FileRef) -> pa.Schema:
    """Checked for extension types before Arrow has built one; without dictionaries, which cannot be entered midway."""
    if stream.read(6) == b"ARROW1":
        raise DataError(f"{file.url}: is an Arrow file, not the stream that `save_to_disk` writes: save it as Parquet")
    stream.seek(0)
    schema = check_schema_bytes(bytes(pa.ipc.read_message(stream).serialize().to_pybytes()), file.url)
    for field in schema:
        if _has_dictionary(field.type):
            raise DataError(f"{file.url}: column {field.name!r} is dictionary-encoded: save the dataset as Parquet")
    return schema


def _messages(stream: BinaryIO) -> Iterator[Any]:
    while True:
        try:
            message = pa.ipc.read_message(stream)
        except EOFError:
            return
        yield message


def _has_dictionary(type: pa.DataType) -> bool:
    return bool(pt.is_dictionary(type)) or any(_has_dictionary(type.field(i).type) for i in range(type.num_fields))


def _open(file: FileRef) -> BinaryIO:
    storage, path = storage_for(file.url)
    return storage.open(path)


@contextmanager
def _reading(file: FileRef) -> Iterator[None]:
    """Arrow's errors about a file's content as a DataError that names it."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{file.url}: is truncated or no Arrow stream ({first}): copy it here again") from error
