"""Each format of files by name: which suffixes are its, how a file is indexed, how a shard is read.

Knows the formats' modules; not where files are found (`listing`), not the order of shards (`plan`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from hfray.data import arrow, csv, images, jsonl, openai_batch, parquet, text
from hfray.data.base import DEFAULT_OPTIONS, FileIndex, FileRef, Format, ReadOptions, Shard, ShardRows
from hfray.data.records import Scanner, lines
from hfray.data.storage import storage_for
from hfray.errors import DataError

Index = Callable[[FileRef, int, str, ReadOptions], FileIndex]
Read = Callable[[Shard, pa.Schema], ShardRows]


@dataclass(frozen=True, slots=True)
class FormatReader:
    """The two functions of a format, the columns that a task sees but the output does not keep, and what finds the
    records of a file that is made of them."""

    index: Index
    read: Read
    payload: tuple[str, ...] = ()
    scanner: Callable[[FileRef, ReadOptions], Scanner] | None = None


FORMATS: dict[Format, FormatReader] = {
    "parquet": FormatReader(parquet.index, parquet.read),
    "jsonl": FormatReader(jsonl.index, jsonl.read, scanner=lambda file, options: lines),
    "csv": FormatReader(csv.index, csv.read, scanner=csv.scanner),
    "text": FormatReader(text.index, text.read, scanner=lambda file, options: lines),
    "images": FormatReader(images.index, images.read, payload=("image",)),
    "arrow": FormatReader(arrow.index, arrow.read),
    "openai-batch": FormatReader(openai_batch.index, openai_batch.read, scanner=lambda file, options: lines),
}


def index_file(file: FileRef, shard_rows: int, spool_dir: str, options: ReadOptions = DEFAULT_OPTIONS) -> FileIndex:
    """One sequential pass over a file (Parquet: its footer).

    spool_dir: URL of a folder that every worker sees; decompressed copies and image listings go there.
    Raises DataError for a file that cannot be used as a whole (truncated, no header, extension types); single bad
    rows are not errors here, `read_shard` reports them.
    """
    if shard_rows < 1:
        raise ValueError(f"shard_rows is {shard_rows}")
    found = FORMATS[file.format].index(file, shard_rows, spool_dir, options)
    _check_unchanged(file)
    seen: set[str] = set()
    for name in found.schema.names:
        if name in seen:
            raise DataError(f"{file.url}: has the column {name!r} twice: rename one of them")
        seen.add(name)
    return found


def read_shard(shard: Shard, schema: pa.Schema) -> ShardRows:
    """The rows of a shard, in the types of the plan's schema.

    Raises DataError when the file is gone, damaged, or not the one that was indexed.
    """
    if shard.spool is None:
        _check_unchanged(shard.file)
    return FORMATS[shard.file.format].read(shard, schema)


def record_scanner(shard: Shard) -> Scanner | None:
    """What finds the records between a shard's bytes; None for a format that is not made of records."""
    make = FORMATS[shard.file.format].scanner
    return None if make is None else make(shard.file, shard.options)


def _check_unchanged(file: FileRef) -> None:
    if not file.version:
        return
    storage, path = storage_for(file.url)
    info = storage.info(path)
    if info is None:
        raise DataError(f"{file.url}: is gone since the job started: put it back")
    if (info.size_bytes, info.version) != (file.size_bytes, file.version):
        raise DataError(
            f"{file.url}: changed since it was listed: put the old content back, or run with --restart to use the new"
        )
