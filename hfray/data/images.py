"""Images: one row per file of a folder, a glob, or a single file. Knows names and bytes; decodes no image.

A row has `path` (below the folder searched) and `label` (the file's parent folder; null where it lies at the top),
both kept in the output, and `image` (the file's bytes), which the task sees and the output does not keep.
The index pass lists the files into the spool, so that a plan over a million images stays small.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import IO

import numpy as np
import pyarrow as pa

from hfray.data.base import FileIndex, FileRef, ReadOptions, Shard, ShardRows
from hfray.data.conform import conform
from hfray.data.listing import expand, format_of
from hfray.data.records import lines
from hfray.data.scan import read_records, spool_writer
from hfray.data.storage import Storage, storage_for
from hfray.data.store_errors import storage_error
from hfray.errors import DataError, EngineError, RowError

_SCHEMA = pa.schema([("path", pa.string()), ("label", pa.string())])
_MAX_IMAGE_BYTES = 256 << 20
_LISTING_BYTES = 16 << 20
_READERS = 8


def index(file: FileRef, shard_rows: int, spool_dir: str, options: ReadOptions) -> FileIndex:
    """Lists the files; the digest is of their names, sizes and (on a store) etags."""
    top = _top(file.url)
    offsets: list[int] = []
    digest = hashlib.blake2b(digest_size=20)
    num_rows = position = 0
    spool = Storage(spool_dir)
    is_local = storage_for(file.url)[0].is_local
    with _temporary_file() as listing:
        for url, info in expand(file.url):
            if format_of(url) != "images":
                continue
            path = url[len(top) :].lstrip("/")
            record = json.dumps([url, path, info.size_bytes]).encode() + b"\n"
            if num_rows % shard_rows == 0:
                offsets.append(position)
            listing.write(record)
            digest.update(f"{path}\0{info.size_bytes}\0{'' if is_local else info.version}\n".encode(errors="replace"))
            position += len(record)
            num_rows += 1
        # Named by its content: a run that finds other files must not change the listing that another one reads.
        name = f"{hashlib.sha256(file.url.encode(errors='surrogatepass') + digest.digest()).hexdigest()[:32]}.images"
        if not spool.exists(name):
            listing.seek(0)
            with spool_writer(spool, name) as target:
                shutil.copyfileobj(listing, target)
    return FileIndex(
        file=file,
        shard_rows=shard_rows,
        num_rows=num_rows,
        schema=_SCHEMA,
        digest=digest.hexdigest(),
        offsets=np.array([*offsets, position], np.int64),
        spool=spool.url(name),
        options=options,
    )


def read(shard: Shard, schema: pa.Schema) -> ShardRows:
    """An image that cannot be read is a bad row, UnreadableImage; a store that cannot be reached is so for all."""
    records = [json.loads(record) for record in read_records(shard, lines)]
    paths = [path for _, path, _ in records]
    with ThreadPoolExecutor(_READERS) as pool:
        images = list(pool.map(_read_image, records))
    errors = {number: image for number, image in enumerate(images) if isinstance(image, RowError)}
    # A name that is not valid UTF-8 reaches Python with surrogates in it.
    shown = [path.encode(errors="surrogateescape").decode(errors="replace") for path in paths]
    labels = [path.split("/")[-2] if "/" in path else None for path in shown]
    table = conform(pa.table({"path": shown, "label": labels}, schema=_SCHEMA), schema, shard.file.url)
    return ShardRows(table, errors, {"image": [None if isinstance(each, RowError) else each for each in images]})


@contextmanager
def _temporary_file() -> Iterator[IO[bytes]]:
    """In memory while it is small. That the temporary folder is full is no fault of the images."""
    try:
        with tempfile.SpooledTemporaryFile(_LISTING_BYTES) as file:
            yield file
    except OSError as error:
        raise EngineError(str(storage_error(error, "the temporary folder (TMPDIR)", "write"))) from error


def _read_image(record: tuple[str, str, int]) -> bytes | RowError:
    url, path, size_bytes = record
    if size_bytes > _MAX_IMAGE_BYTES:
        return RowError(f"{path!r} has {size_bytes:,} bytes, over {_MAX_IMAGE_BYTES:,}", type="ImageTooLarge")
    storage, key = storage_for(url)
    try:
        return storage.read_bytes(key)
    except DataError as error:
        return RowError(str(error), type="UnreadableImage")


def _top(url: str) -> str:
    """The folder that paths are told from: the folder itself, what a glob has before its first wildcard, or the
    folder of a single image."""
    storage, key = storage_for(url)
    if storage.is_folder(key):
        return url
    head = key
    for wildcard in "*?[":
        head = head.partition(wildcard)[0]
    return storage.url(head.rpartition("/")[0])
