"""Blocks of token parts as arrays: a row group of a Parquet part, a record batch of an Arrow one. Knows files; not
which example is wanted, not how many blocks are kept.

A block that was read once can be left on the local disk (`Spool`), uncompressed, and is mapped from there: then it
takes no memory of the process, and reading an example of it costs a page.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hfray.data.extensions import check_parquet_footer, check_schema_bytes
from hfray.data.storage import Storage
from hfray.data.store_errors import translated
from hfray.data.token_parts import from_table
from hfray.errors import DataError
from hfray.types import Column, Ragged

_BUFFER_BYTES = 64 << 10
_MAGIC = b"PAR1"
_MAPPED_BYTES = 64 << 10
"""What a mapped block counts as: its memory is the page cache's, but a process may map only so many files."""


@dataclass(frozen=True, slots=True)
class Block:
    """Some consecutive examples of a part. num_bytes: what the block takes of the process's memory."""

    columns: Mapping[str, Column]
    num_bytes: int


class PartReader(Protocol):
    """An open part."""

    starts: Sequence[int]
    """The first example of each block, and their number at the end."""
    mapped: bool
    """Whether blocks are mapped from a local disk, not decoded."""

    def read(self, block: int) -> pa.Table: ...
    def largest(self, column: str) -> int: ...
    def close(self) -> None: ...


class ParquetPart:
    """A part whose blocks are its row groups. Raises DataError for a file that is no such part."""

    mapped = False

    def __init__(self, storage: Storage, path: str, columns: Sequence[str]) -> None:
        self._url = storage.url(path)
        self._columns = list(columns)
        self._stream = storage.open(path, _BUFFER_BYTES)
        try:
            _check_footer(self._stream, self._url)
            with _reading(self._url):
                # Column chunks are fetched together where each request costs a round trip.
                self._file = pq.ParquetFile(
                    self._stream, pre_buffer=not storage.is_local, arrow_extensions_enabled=False
                )
                metadata = self._file.metadata
                counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        except BaseException:
            self._stream.close()
            raise
        self.starts = [0, *accumulate(counts)]

    def read(self, block: int) -> pa.Table:
        with _reading(self._url):
            return self._file.read_row_group(block, columns=self._columns, use_threads=False)

    def largest(self, column: str) -> int:
        """Of a column of whole numbers, by the footer alone where it tells; -1 of none."""
        metadata, found = self._file.metadata, -1
        place = [metadata.schema.column(number).path for number in range(metadata.num_columns)].index(column)
        for group in range(metadata.num_row_groups):
            if metadata.row_group(group).num_rows:
                statistics = metadata.row_group(group).column(place).statistics
                told = statistics is not None and statistics.has_min_max
                found = max(found, int(statistics.max) if told else _largest(self.read(group), column))
        return found

    def close(self) -> None:
        self._file.close(force=True)
        self._stream.close()


class ArrowPart:
    """A part of a saved dataset: mapped where it lies on this machine's disk, else one block, read whole. Raises
    DataError for a file that is no such part."""

    def __init__(self, storage: Storage, path: str, columns: Sequence[str]) -> None:
        self._url = storage.url(path)
        self._columns = list(columns)
        self._storage, self._path = storage, path
        self.mapped = storage.is_local
        self._batches: list[pa.RecordBatch] = []
        self._table: pa.Table | None = None
        with _reading(self._url):
            _check_schema(storage, path, self._url)
            if self.mapped:
                self._batches = _mapped(storage.local_path(path))
                self.starts = [0, *accumulate(batch.num_rows for batch in self._batches)]
            else:
                self._table = self._download()
                self.starts = [0, self._table.num_rows]

    def read(self, block: int) -> pa.Table:
        with _reading(self._url):
            if self.mapped:
                return pa.Table.from_batches([self._batches[block]]).select(self._columns)
            # What was read to count the examples is the block itself; it is not kept here a second time.
            table, self._table = self._table, None
            return (self._download() if table is None else table).select(self._columns)

    def largest(self, column: str) -> int:
        """Of a column of whole numbers; -1 of none. This format has no footer that tells."""
        return max((_largest(self.read(block), column) for block in range(len(self.starts) - 1)), default=-1)

    def close(self) -> None:
        self._batches, self._table = [], None

    def _download(self) -> pa.Table:
        with pa.ipc.open_stream(self._storage.read_bytes(self._path)) as reader:
            return reader.read_all().combine_chunks()


class Spool:
    """Blocks on the local disk. Several processes may share the folder: a block appears whole, under one name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, name: str) -> Block | None:
        """The block of this name, mapped; None if nobody has put it there."""
        path = self._path(name)
        if not path.exists():
            return None
        with _reading(str(path)):
            return block_of(pa.Table.from_batches(_mapped(path)), mapped=True)

    def put(self, name: str, table: pa.Table) -> None:
        """Writes a block; of several writers any one wins, since all write the same."""
        temporary = self._folder / f".{name}.{uuid.uuid4().hex}.tmp"
        try:
            with translated(str(temporary), "write"):
                with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
                    writer.write_table(table.combine_chunks())
                os.replace(temporary, self._path(name))
        finally:
            with suppress(OSError):
                temporary.unlink()

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.arrow"


def open_part(storage: Storage, path: str, columns: Sequence[str]) -> PartReader:
    """The reader for a part, by its suffix. columns: those to read. Raises DataError."""
    suffix = path.rpartition(".")[2]
    if suffix not in _READERS:
        raise _damaged(storage.url(path), f"tokens are kept as {' and '.join(_READERS)}, not as {suffix}")
    reader: PartReader = _READERS[suffix](storage, path, columns)
    return reader


_READERS: dict[str, Any] = {"parquet": ParquetPart, "arrow": ArrowPart}


def block_of(table: pa.Table, *, mapped: bool) -> Block:
    """The columns of a table as arrays, without a copy."""
    return Block(_columns(table), _MAPPED_BYTES if mapped else int(table.nbytes))


def _columns(table: pa.Table) -> dict[str, Column]:
    """As `from_table`, and lists of pairs as arrays too."""
    pairs = [field.name for field in table.schema if _is_pairs(field.type)]
    columns = from_table(table.drop_columns(pairs))
    for name in pairs:
        array = table[name].combine_chunks()
        array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
        offsets = array.offsets.to_numpy().astype("int64")
        flat = array.values.values.to_numpy(zero_copy_only=False).reshape(-1, array.type.value_type.list_size)
        columns[name] = Ragged(flat[offsets[0] : offsets[-1]], offsets - offsets[0])
    return {name: columns[name] for name in table.column_names}


def _largest(table: pa.Table, column: str) -> int:
    found = pc.max(table.column(column)).as_py()
    return -1 if found is None else int(found)


def _is_pairs(type_: pa.DataType) -> bool:
    return bool(pa.types.is_list(type_) and pa.types.is_fixed_size_list(type_.value_type))


def _mapped(path: Path) -> list[pa.RecordBatch]:
    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
        return list(reader)


def _check_footer(stream: BinaryIO, url: str) -> None:
    with translated(url, "read"):
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - 8))
        tail = stream.read(8)
        length = int.from_bytes(tail[:4], "little")
        if size < 12 or tail[4:] != _MAGIC or length > size - 12:
            raise _damaged(url, "no Parquet footer")
        stream.seek(size - 8 - length)
        footer = stream.read(length)
        stream.seek(0)
    check_parquet_footer(footer, url)


def _check_schema(storage: Storage, path: str, url: str) -> None:
    """Format: Arrow columnar format, "Encapsulated message format": 0xFFFFFFFF, the length of the metadata, itself."""
    length = int.from_bytes(storage.read_range(path, 4, 8), "little")
    check_schema_bytes(storage.read_range(path, 0, 8 + length), url)


@contextmanager
def _reading(url: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise _damaged(url, str(error).splitlines()[0] if str(error) else type(error).__name__) from error


def _damaged(url: str, reason: str) -> DataError:
    return DataError(f"{url}: is not a whole part of tokens ({reason}): copy the folder again, or tokenise again")
