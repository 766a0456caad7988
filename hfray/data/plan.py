"""The shard plan: which rows of which file make which shard. Knows counts and offsets; reads nothing.

Lazy: a plan holds one small index per file, and makes shard i when it is asked for, by bisection; a million shards
cost a few megabytes of byte offsets (none for Parquet).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from hfray.data.base import DEFAULT_OPTIONS, FileIndex, FileRef, ReadOptions, Shard
from hfray.data.conform import merge_schemas
from hfray.data.storage import Storage
from hfray.errors import SpecError
from hfray.spec.row_range import bounds

_VERSION = 1
"""Raise it when an index means something else than before: cached ones are then made again."""


class Plan:
    """The shards of all input files, in order. No shard spans two files. Picklable."""

    def __init__(self, indexes: Sequence[FileIndex], limit: int | None = None, *, select: str | None = None) -> None:
        """select: which source rows make the input (`spec.row_range`); limit: how many of them, from the first.

        Raises SpecError when the files' schemas do not fit together, or there are no files.
        """
        if not indexes:
            raise SpecError("input.path: there are no input files")
        self.shard_rows = indexes[0].shard_rows
        if any(index.shard_rows != self.shard_rows for index in indexes):
            raise ValueError("the indexes were made for different shard_rows")
        self.indexes = tuple(_share_schemas(indexes))
        self.schema: pa.Schema = merge_schemas((index.file.url, index.schema) for index in self.indexes)
        counts = np.array([index.num_rows for index in indexes], np.int64)
        ends = np.concatenate([[0], np.cumsum(counts)])
        first, last = bounds(select, int(ends[-1]), limit)
        # Per file, the first and the last of its rows that are wanted, and where these stand in the input.
        begins = np.clip(first - ends[:-1], 0, counts)
        counts = np.clip(last - ends[:-1], 0, counts) - begins
        self._file_rows = np.maximum(begins, 0)
        self._first_rows = np.concatenate([[0], np.cumsum(counts)])
        self._first_shards = np.concatenate([[0], np.cumsum(-(-counts // self.shard_rows))])

    @property
    def num_shards(self) -> int:
        return int(self._first_shards[-1])

    @property
    def num_rows(self) -> int:
        """Source rows that are selected; `sample` and `where` may leave fewer."""
        return int(self._first_rows[-1])

    def shard(self, number: int) -> Shard:
        """Shard `number`, counted from 0. Raises IndexError."""
        if not 0 <= number < self.num_shards:
            raise IndexError(f"shard {number} of {self.num_shards}")
        file = int(np.searchsorted(self._first_shards, number, side="right")) - 1
        first_row = (number - int(self._first_shards[file])) * self.shard_rows
        start, stop = int(self._first_rows[file]), int(self._first_rows[file + 1])
        num_rows = min(self.shard_rows, stop - start - first_row)
        piece = self.indexes[file].slice(int(self._file_rows[file]) + first_row, num_rows)
        return replace(piece, index=number, first_position=start + first_row)

    def input_identity(self) -> dict[str, Any]:
        """What the fingerprint holds of the input: equal content in another place, or another time, is equal.

        Paths of local files are told from their common folder; times do not count, contents do.
        """
        urls = [index.file.url for index in self.indexes]
        are_local = all("://" not in url for url in urls)
        root = os.path.commonpath([os.path.dirname(url) for url in urls]) if are_local else ""
        files = [
            {
                "path": os.path.relpath(index.file.url, root) if are_local else index.file.url,
                "format": index.file.format,
                "size_bytes": index.file.size_bytes,
                "num_rows": index.num_rows,
                "digest": index.digest,
            }
            for index in self.indexes
        ]
        return {"shard_rows": self.shard_rows, "num_rows": self.num_rows, "files": files}


def _share_schemas(indexes: Sequence[FileIndex]) -> Iterator[FileIndex]:
    """The same indexes with equal schemas as one object: a hundred thousand files mostly have one schema."""
    last: pa.Schema | None = None
    for index in indexes:
        if last is not None and index.schema.equals(last):
            index = replace(index, schema=last)
        last = index.schema
        yield index


class IndexCache:
    """Indexes kept in a folder, by what they depend on: the file's version, the format, how it is read."""

    def __init__(self, storage: Storage, folder: str) -> None:
        self._storage, self._folder = storage, folder

    def load(self, file: FileRef, shard_rows: int, options: ReadOptions = DEFAULT_OPTIONS) -> FileIndex | None:
        """The index, or None if there is none, it is damaged, or its spool file is gone."""
        if not file.version:
            return None
        path = self._path(file, shard_rows, options)
        if not self._storage.exists(path):
            return None
        try:
            index = FileIndex.from_bytes(self._storage.read_bytes(path))
        except (ValueError, KeyError, TypeError, pa.ArrowException):
            return None
        if index.file != file or index.shard_rows != shard_rows:
            return None
        if index.spool is not None:
            folder, _, name = index.spool.rpartition("/")
            if not Storage(folder).exists(name):
                return None
        return index

    def save(self, index: FileIndex) -> None:
        """Keeps an index; one without a version (a folder of images) has to be made anew each time."""
        if index.file.version:
            self._storage.make_dirs(self._folder)
            self._storage.replace(self._path(index.file, index.shard_rows, index.options), index.to_bytes())

    def _path(self, file: FileRef, shard_rows: int, options: ReadOptions) -> str:
        key = [_VERSION, file.url, file.size_bytes, file.version, file.format, shard_rows, options.delimiter]
        name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:40]
        return f"{self._folder}/{name}.index".lstrip("/")
