"""The index pass over a file made of records, and the reading of a slice of it. Knows bytes, gzip and the spool.

A compressed file cannot be entered midway: the index pass decompresses it once into a spool file beside the output,
and shards are read from there.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO

import numpy as np

from hfray.data.base import FileIndex, FileRef, ReadOptions, Shard, check_num_rows
from hfray.data.records import Readable, Record, Scanner
from hfray.data.storage import Storage, storage_for
from hfray.data.store_errors import translated
from hfray.errors import DataError, EngineError

Visit = Callable[[bytes], bool]
"""Sees every record once; whether it counts as a row (a CSV header does not)."""


def index_records(
    file: FileRef, shard_rows: int, spool_dir: str, options: ReadOptions, scanner: Scanner, visit: Visit
) -> FileIndex:
    """One pass; the caller puts the schema in (`dataclasses.replace`) from what `visit` saw."""
    import pyarrow as pa

    offsets: list[int] = []
    num_rows = end = 0
    with _source(file, spool_dir) as source:
        for start, stop, record in scanner(source, file.url, 0):
            end = stop
            if not visit(record):
                continue
            if num_rows % shard_rows == 0:
                offsets.append(start)
            num_rows += 1
    return FileIndex(
        file=file,
        shard_rows=shard_rows,
        num_rows=num_rows,
        schema=pa.schema([]),
        digest=source.digest,
        offsets=np.array([*offsets, end], np.int64),
        spool=source.spool,
        options=options,
    )


def read_records(shard: Shard, scanner: Scanner) -> list[bytes]:
    """The records of a shard's rows. Raises DataError if the file no longer holds them."""
    if not shard.num_rows:
        return []
    storage, path = storage_for(shard.spool or shard.file.url)
    data = storage.read_range(path, shard.start_byte, shard.stop_byte)
    found = []
    for number, (_, _, record) in enumerate(_numbered(scanner, data, shard)):
        if number >= shard.skip_rows:
            found.append(record)
        if len(found) == shard.num_rows:
            break
    check_num_rows(shard, len(found))
    return found


def spool_path(file: FileRef, suffix: str) -> str:
    """The name of a file's spool: the same for equal content, so that a second index pass replaces it by its like."""
    key = hashlib.sha256(f"{file.url}\n{file.size_bytes}\n{file.version}".encode(errors="surrogatepass")).hexdigest()[
        :32
    ]
    return f"{key}.{suffix}"


@contextmanager
def spool_writer(spool: Storage, name: str) -> Iterator[BinaryIO]:
    """A spool file to write; it appears whole. What the disk refuses here is an EngineError: the input file is not to
    blame, and must not count as one that cannot be read, which a job may leave out."""
    of_the_input: DataError | None = None
    try:
        spool.make_dirs()
        with spool.writer(name) as file:
            try:
                yield file
            except DataError as error:
                of_the_input = error
                raise
    except DataError as error:
        if error is of_the_input:
            raise
        raise EngineError(str(error)) from error


def _numbered(scanner: Scanner, data: bytes, shard: Shard) -> Iterator[Record]:
    return scanner(io.BytesIO(data), shard.file.url, shard.start_byte)


class _Source:
    """A stream of (decompressed) bytes that hashes, and copies, what passes through it."""

    def __init__(self, name: str, stream: Readable, copy: BinaryIO | None, spool: str | None) -> None:
        self._name, self._stream, self._copy, self.spool = name, stream, copy, spool
        self._hash = hashlib.blake2b(digest_size=20)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def read(self, size: int, /) -> bytes:
        try:
            with translated(self._name, "read"):
                data = self._stream.read(size)
        except (EOFError, zlib.error, DataError) as error:
            if isinstance(error, DataError) and not isinstance(error.__cause__, gzip.BadGzipFile):
                raise
            raise DataError(
                f"{self._name}: is truncated or not gzip ({error.__cause__ or error}): copy it here again"
            ) from error
        self._hash.update(data)
        if self._copy is not None:
            self._copy.write(data)
        return data


@contextmanager
def _source(file: FileRef, spool_dir: str) -> Iterator[_Source]:
    storage, path = storage_for(file.url)
    with ExitStack() as stack:
        raw = stack.enter_context(storage.open(path))
        if not file.url.lower().endswith(".gz"):
            yield _Source(file.url, raw, None, None)
            return
        spool = Storage(spool_dir)
        name = spool_path(file, "records")
        copy = stack.enter_context(spool_writer(spool, name))
        unzipped = stack.enter_context(gzip.GzipFile(fileobj=raw, mode="rb"))
        yield _Source(file.url, unzipped, copy, spool.url(name))
