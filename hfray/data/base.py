"""The plain data of the reading side: files, their indexes, shards, and the rows of a shard.

Knows Arrow and numpy; not how a file is stored, not any format, not tasks, not Ray.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from hfray.errors import DataError, RowError
from hfray.types import Array

Format = Literal["parquet", "jsonl", "csv", "text", "images", "arrow", "openai-batch"]
"""How the bytes of one file are read. (`huggingface` names a place to look for files, not a format of files.)"""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One file of a listing. path: relative to the storage's root; version: etag on a store, mtime in ns on a disk."""

    path: str
    size_bytes: int
    version: str


@dataclass(frozen=True, slots=True)
class FileRef:
    """One input file: an absolute path or a URL. `version` changes when the content does (etag, or mtime in ns).

    For format "images" it stands for a whole folder, glob or single image: `size_bytes` is 0 and `version` empty,
    the index pass lists it.
    """

    url: str
    size_bytes: int
    version: str
    format: Format


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How the author of a job wants files read.

    delimiter: of CSV, one ASCII character; None means a comma, or a tab for `.tsv` files.
    """

    delimiter: str | None = None


DEFAULT_OPTIONS = ReadOptions()


@dataclass(frozen=True, slots=True, eq=False)
class FileIndex:
    """What one sequential pass found out about a file; everything that is needed to enter it at a shard.

    schema:  Arrow types of the columns that are written to the output.
    digest:  hex, of the content (Parquet: of the footer; images: of the listing).
    offsets: int64 [num_shards + 1]: byte where shard k's first record starts, the end last; empty for Parquet.
    skips:   int64 [num_shards]: rows to skip after that byte (Arrow record batches hold several rows); may be empty.
    header:  CSV only: the file's columns in order.
    spool:   URL of the decompressed (or listed) copy that shards are read from; None: the file itself.
    """

    file: FileRef
    shard_rows: int
    num_rows: int
    schema: pa.Schema
    digest: str
    offsets: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    skips: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    header: tuple[str, ...] = ()
    spool: str | None = None
    options: ReadOptions = DEFAULT_OPTIONS

    def to_bytes(self) -> bytes:
        """An Arrow IPC stream: the offsets as its rows, the rest in the schema's metadata. No pickle."""
        meta = {
            "file": [self.file.url, self.file.size_bytes, self.file.version, self.file.format],
            "shard_rows": self.shard_rows,
            "num_rows": self.num_rows,
            "digest": self.digest,
            "header": list(self.header),
            "spool": self.spool,
            "delimiter": self.options.delimiter,
            "num_skips": len(self.skips),
        }
        padded = np.zeros(len(self.offsets), np.int64)
        padded[: len(self.skips)] = self.skips
        table = pa.table({"offset": self.offsets, "skip": padded}).replace_schema_metadata(
            {b"hfray": json.dumps(meta).encode(), b"columns": self.schema.serialize().to_pybytes()}
        )
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return bytes(sink.getvalue().to_pybytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> FileIndex:
        """The inverse of `to_bytes`. Raises ValueError (pa.ArrowInvalid, KeyError) for anything else."""
        with pa.ipc.open_stream(data) as reader:
            table = reader.read_all()
        meta = json.loads(table.schema.metadata[b"hfray"])
        url, size_bytes, version, format = meta["file"]
        return cls(
            file=FileRef(url, size_bytes, version, format),
            shard_rows=meta["shard_rows"],
            num_rows=meta["num_rows"],
            schema=pa.ipc.read_schema(pa.py_buffer(table.schema.metadata[b"columns"])),
            digest=meta["digest"],
            offsets=table["offset"].to_numpy(),
            skips=table["skip"].to_numpy()[: meta["num_skips"]],
            header=tuple(meta["header"]),
            spool=meta["spool"],
            options=ReadOptions(meta["delimiter"]),
        )

    def slice(self, first_row: int, num_rows: int) -> Shard:
        """The rows `[first_row, first_row + num_rows)` of this file as a shard that numbers itself from 0."""
        if not 0 <= first_row <= first_row + num_rows <= self.num_rows:
            raise ValueError(f"rows {first_row}..{first_row + num_rows} of a file with {self.num_rows} rows")
        start_byte, stop_byte, skip_rows = 0, 0, 0
        if len(self.offsets):
            entry = min(first_row // self.shard_rows, len(self.offsets) - 1)
            leave = min(-(-(first_row + num_rows) // self.shard_rows), len(self.offsets) - 1)
            start_byte, stop_byte = int(self.offsets[entry]), int(self.offsets[leave])
            skip_rows = first_row - entry * self.shard_rows
            if len(self.skips) and num_rows:
                skip_rows += int(self.skips[entry])
        return Shard(
            index=0,
            file=self.file,
            first_row=first_row,
            num_rows=num_rows,
            first_position=first_row,
            start_byte=start_byte,
            stop_byte=stop_byte,
            skip_rows=skip_rows,
            header=self.header,
            spool=self.spool,
            options=self.options,
        )


@dataclass(frozen=True, slots=True)
class Shard:
    """A slice of one file: the unit of work. Small, picklable, all that `read_shard` needs beside the schema.

    index: number in the plan; first_row: row number in the file; first_position: row number in the whole input.
    """

    index: int
    file: FileRef
    first_row: int
    num_rows: int
    first_position: int
    start_byte: int = 0
    stop_byte: int = 0
    skip_rows: int = 0
    header: tuple[str, ...] = ()
    spool: str | None = None
    options: ReadOptions = DEFAULT_OPTIONS

    def __str__(self) -> str:
        return f"rows {self.first_row:,} to {self.first_row + self.num_rows:,} of {self.file.url}"


@dataclass(frozen=True, slots=True)
class ShardRows:
    """The rows of a shard.

    table:  [num_rows] the input columns as they go to the output; valid UTF-8 throughout.
    errors: row number in the shard -> why the row cannot be used; such a row is never shown to a task.
    seen:   column -> one value per row: what a task sees where that differs from the table (a JSON value as it was
            parsed), or what it sees and the output does not keep (the bytes of an image).
    """

    table: pa.Table
    errors: dict[int, RowError] = field(default_factory=dict)
    seen: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        return int(self.table.num_rows)

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns a task can see."""
        return (*self.table.column_names, *(name for name in self.seen if name not in self.table.column_names))

    def rows(self, columns: Collection[str] | None = None) -> list[dict[str, Any]]:
        """One dict per row, all columns or the named ones (a name that is not there is left out)."""
        names = [name for name in self.columns if columns is None or name in columns]
        values = [self.seen[name] if name in self.seen else self.table[name].to_pylist() for name in names]
        if not names:
            return [{} for _ in range(self.num_rows)]
        return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]

    def take(self, numbers: Sequence[int]) -> ShardRows:
        """The rows with these numbers, in this order."""
        return ShardRows(
            self.table.take(pa.array(numbers, pa.int64())),
            {new: self.errors[old] for new, old in enumerate(numbers) if old in self.errors},
            {name: [values[number] for number in numbers] for name, values in self.seen.items()},
        )

    def rename(self, names: Sequence[str], seen: dict[str, str]) -> ShardRows:
        """The table's columns under new names (one per column), `seen` ones by old name -> new name."""
        return replace(
            self,
            table=self.table.rename_columns(list(names)),
            seen={seen.get(name, name): values for name, values in self.seen.items()},
        )


def check_num_rows(shard: Shard, num_rows: int) -> None:
    """Raises DataError when a file no longer holds what its index says."""
    if num_rows != shard.num_rows:
        raise DataError(
            f"{shard.file.url}: expected {shard.num_rows:,} rows from row {shard.first_row:,}, found {num_rows:,}: "
            "the file changed while the job ran; put it back, or run with --restart"
        )
