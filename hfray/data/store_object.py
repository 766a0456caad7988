"""Amazon S3, Google Cloud Storage and Azure Blob Storage through `obstore`. Keys are object names in one bucket.

Configured from each cloud's usual environment variables. Raises obstore's errors; `Storage` translates.
"""

from __future__ import annotations

import io
import os
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast

from hfray.data.base import FileInfo
from hfray.data.store_errors import translated
from hfray.errors import DataError

_ENDPOINTS: dict[str, tuple[str, ...]] = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": (),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_CONFLICTS = 6


class ObjectStore:
    """The objects of one bucket or container."""

    def __init__(self, scheme: str, bucket: str) -> None:
        from obstore.store import from_url

        self._root = f"{scheme}://{bucket}"
        endpoint = next((os.environ[name] for name in _ENDPOINTS[scheme] if os.environ.get(name)), "")
        client: dict[str, Any] = {"connect_timeout": "5s", "timeout": "120s"}
        if endpoint.startswith("http://"):
            client["allow_http"] = True
        self._settings: dict[str, Any] = {
            "config": {"aws_endpoint": endpoint} if scheme == "s3" and endpoint else None,
            "client_options": client,
            "retry_config": {"max_retries": 6, "retry_timeout": timedelta(seconds=60)},
        }
        self._store = from_url(self._root, **self._settings)

    def for_arrow(self, key: str) -> tuple[Any, str]:
        from obstore.fsspec import FsspecStore
        from pyarrow.fs import FSSpecHandler, PyFileSystem

        scheme, _, bucket = self._root.partition("://")
        return PyFileSystem(FSSpecHandler(FsspecStore(scheme, **self._settings))), f"{bucket}/{key}"

    def list(self, prefix: str) -> Iterator[FileInfo]:
        import obstore

        for page in obstore.list(self._store, prefix or None, chunk_size=1000):
            for meta in page:
                yield _info(meta)

    def names(self, prefix: str) -> tuple[str, ...]:
        import obstore

        found = obstore.list_with_delimiter(self._store, prefix or None)
        paths = [*found["common_prefixes"], *(meta["path"] for meta in found["objects"])]
        return tuple(sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in paths))

    def info(self, key: str) -> FileInfo:
        import obstore

        return _info(obstore.head(self._store, key))

    def is_folder(self, key: str) -> bool:
        import obstore

        found = obstore.list_with_delimiter(self._store, key or None)
        return bool(found["common_prefixes"] or found["objects"])

    def open(self, key: str, buffer_bytes: int) -> BinaryIO:
        return cast(BinaryIO, io.BufferedReader(_Reader(self, key, self.info(key).size_bytes), buffer_bytes))

    def read_range(self, key: str, start: int, stop: int | None) -> bytes:
        import obstore

        if stop is None:
            if start == 0:
                return bytes(obstore.get(self._store, key).bytes())
            stop = self.info(key).size_bytes
        return bytes(obstore.get_range(self._store, key, start=start, end=stop)) if stop > start else b""

    def create_exclusive(self, key: str, data: bytes | Path, attempts: str) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError, GenericError, PreconditionError

        try:
            for conflict in range(_CONFLICTS):
                try:
                    # One PUT: the parts of a multipart upload cannot carry the condition.
                    obstore.put(self._store, key, data, mode="create", use_multipart=False)
                    return True
                except (AlreadyExistsError, PreconditionError, GenericError) as error:
                    if isinstance(error, GenericError) and "ConditionalRequestConflict" not in str(error):
                        raise
                    # S3 answers 409 while another PUT is under way, which does not say that anybody has won.
                    if self._exists(key):
                        return False
                    time.sleep(random.uniform(0, 0.05 * 2**conflict))
        finally:
            _consume(data)
        raise DataError(
            f"cannot create {self._root}/{key}: the store keeps answering 409 (conflict) although the object does "
            "not exist: run the same command again"
        )

    def replace(self, key: str, data: bytes | Path) -> None:
        import obstore

        try:
            obstore.put(self._store, key, data)
        finally:
            _consume(data)

    @contextmanager
    def writer(self, key: str) -> Iterator[BinaryIO]:
        handle, name = tempfile.mkstemp(prefix="hfray-")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
            self.replace(key, temporary)
        finally:
            _consume(temporary)

    def delete(self, key: str) -> None:
        import obstore

        try:
            obstore.delete(self._store, key)
        except FileNotFoundError:
            return

    def delete_prefix(self, prefix: str) -> None:
        import obstore

        for page in obstore.list(self._store, prefix or None, chunk_size=1000):
            obstore.delete(self._store, [meta["path"] for meta in page])

    def make_dirs(self, key: str) -> None:
        """Nothing: an object store has no folders."""

    def _exists(self, key: str) -> bool:
        try:
            self.info(key)
        except FileNotFoundError:
            return False
        return True

    def url(self, key: str) -> str:
        return f"{self._root}/{key}"


class _Reader(io.RawIOBase):
    """A seekable object, one ranged GET per read; buffering is the caller's."""

    def __init__(self, store: ObjectStore, key: str, size_bytes: int) -> None:
        self._store, self._key, self._size, self._position = store, key, size_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        stop = min(self._position + len(view), self._size)
        with translated(self._store.url(self._key), "read"):
            data = self._store.read_range(self._key, self._position, max(stop, self._position))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)


def _info(meta: Any) -> FileInfo:
    return FileInfo(meta["path"], meta["size"], (meta["e_tag"] or meta["last_modified"].isoformat()).strip('"'))


def _consume(data: bytes | Path) -> None:
    if isinstance(data, Path):
        data.unlink(missing_ok=True)
