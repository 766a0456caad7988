"""One small set of verbs over a folder, a bucket or a hub repository. Knows URLs; not what the files mean.

    /folder, file:///folder     a disk; exclusive creation is a hard link
    s3:// gs:// az://           an object store through obstore; exclusive creation is a conditional PUT
    hf://datasets/org/name      the Hugging Face hub, read only

Every error is a DataError that names the URL, the cause and what to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from hfray.data.base import FileInfo
from hfray.data.store_errors import translated
from hfray.data.urls import parse_url
from hfray.errors import DataError

_BUFFER_BYTES = 4 << 20


class Backend(Protocol):
    """What a kind of storage can do with full keys; raises its own errors."""

    def list(self, prefix: str) -> Iterator[FileInfo]: ...
    def names(self, prefix: str) -> tuple[str, ...]: ...
    def info(self, key: str) -> FileInfo: ...
    def is_folder(self, key: str) -> bool: ...
    def open(self, key: str, buffer_bytes: int) -> BinaryIO: ...
    def read_range(self, key: str, start: int, stop: int | None) -> bytes: ...
    def create_exclusive(self, key: str, data: bytes | Path, attempts: str) -> bool: ...
    def replace(self, key: str, data: bytes | Path) -> None: ...
    def writer(self, key: str) -> AbstractContextManager[BinaryIO]: ...
    def delete(self, key: str) -> None: ...
    def delete_prefix(self, prefix: str) -> None: ...
    def make_dirs(self, key: str) -> None: ...
    def for_arrow(self, key: str) -> tuple[Any, str]: ...


class Storage:
    """The files below one root URL. Paths are relative to it, with "/"; "" is the root itself.

    Picklable (it travels as its URL) and usable from several threads. A relative local root is made absolute here,
    so that it means the same in a worker.
    """

    def __init__(self, url: str) -> None:
        self._scheme, self._bucket, self._prefix = parse_url(url)
        self._backend_: Backend | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Storage, (self.root,)

    def __repr__(self) -> str:
        return f"Storage({self.root!r})"

    @property
    def root(self) -> str:
        return self.url("")

    @property
    def is_local(self) -> bool:
        return self._scheme == "file"

    def url(self, path: str) -> str:
        """The absolute local path, or the URL, of `path`."""
        key = self._key(path)
        if self.is_local:
            return key
        return f"{self._scheme}://{self._bucket}/{key}".rstrip("/") if self._bucket else f"{self._scheme}://{key}"

    def for_arrow(self, path: str) -> tuple[Any, str]:
        """pyarrow's file system for `path`, and its name there: for libraries that write by themselves. None for a
        disk."""
        with translated(self.url(path), "look at"):
            return self._backend.for_arrow(self._key(path))

    def local_path(self, path: str) -> Path:
        """`path` on this machine's disk. Raises ValueError for a remote root."""
        if not self.is_local:
            raise ValueError(f"{self.url(path)} is not on a local disk")
        return Path(self._key(path))

    def list(self, prefix: str = "") -> Iterator[FileInfo]:
        """Every file below the folder `prefix`, recursively, in the order of paths; nothing if it is not there."""
        cut = len(self._prefix.rstrip("/")) + 1 if self._prefix else 0
        with translated(self.url(prefix), "list"):
            for info in self._backend.list(self._key(prefix)):
                yield FileInfo(info.path[cut:], info.size_bytes, info.version)

    def names(self, prefix: str = "") -> tuple[str, ...]:
        """The names of the files and folders directly below the folder `prefix`, sorted; empty if it is not there."""
        with translated(self.url(prefix), "list"):
            return self._backend.names(self._key(prefix))

    def info(self, path: str) -> FileInfo | None:
        """Size and version of one file; None if it is not there or is a folder."""
        try:
            with translated(self.url(path), "look at"):
                info = self._backend.info(self._key(path))
        except DataError as error:
            if isinstance(error.__cause__, FileNotFoundError | IsADirectoryError | NotADirectoryError):
                return None
            raise
        return FileInfo(path, info.size_bytes, info.version)

    def exists(self, path: str) -> bool:
        """Whether there is a file (not a folder) of this name."""
        return self.info(path) is not None

    def is_folder(self, path: str) -> bool:
        """Whether there is a folder of this name; on an object store: anything below it."""
        with translated(self.url(path), "look at"):
            return self._backend.is_folder(self._key(path))

    def size(self, path: str) -> int:
        """In bytes."""
        with translated(self.url(path), "look at"):
            return self._backend.info(self._key(path)).size_bytes

    def read_bytes(self, path: str) -> bytes:
        """The whole file."""
        return self.read_range(path, 0, None)

    def read_range(self, path: str, start: int, stop: int | None) -> bytes:
        """Bytes `[start, stop)`, to the end with None; shorter only at the end of the file."""
        with translated(self.url(path), "read"):
            return self._backend.read_range(self._key(path), start, stop)

    def open(self, path: str, buffer_bytes: int = _BUFFER_BYTES) -> BinaryIO:
        """A buffered, seekable binary file to read from. The caller closes it."""
        with translated(self.url(path), "open"):
            return self._backend.open(self._key(path), buffer_bytes)

    def create_exclusive(self, path: str, data: bytes | Path, attempts_dir: str) -> bool:
        """Creates a whole file under a name that nobody has; True if this call did, False if the name was taken.

        Of any number of concurrent callers exactly one gets True, and no reader ever sees a part of a file.
        data:         the bytes, or a local file; the file is consumed (gone afterwards, whoever wins).
        attempts_dir: on a disk, an existing folder of the same file system; the file is written and synced there
                      and then linked. It is never created: a run that finds it gone has been taken over (DataError).
                      An object store does not use it: there a conditional PUT is one step.
        On a store a PUT that the client had to repeat after a lost answer may report False for our own object.
        """
        with translated(self.url(path), "create"):
            return self._backend.create_exclusive(self._key(path), data, self._key(attempts_dir))

    def replace(self, path: str, data: bytes | Path) -> None:
        """Writes a whole file over whatever is there, atomically. A local file as `data` is consumed."""
        with translated(self.url(path), "write"):
            self._backend.replace(self._key(path), data)

    @contextmanager
    def writer(self, path: str) -> Iterator[BinaryIO]:
        """A file to write sequentially; it appears under its name, whole, when the block ends without an error."""
        with translated(self.url(path), "write"), self._backend.writer(self._key(path)) as file:
            yield file

    def delete(self, path: str) -> None:
        """Deletes one file; nothing happens if it is not there."""
        with translated(self.url(path), "delete"):
            self._backend.delete(self._key(path))

    def delete_prefix(self, prefix: str) -> None:
        """Deletes a folder with everything in it; nothing happens if it is not there."""
        with translated(self.url(prefix), "delete"):
            self._backend.delete_prefix(self._key(prefix))

    def make_dirs(self, path: str = "") -> None:
        """Makes a folder and those above it on a disk; nothing to do on an object store."""
        with translated(self.url(path), "make the folder"):
            self._backend.make_dirs(self._key(path))

    def _key(self, path: str) -> str:
        if ".." in path.split("/") or path.startswith("/"):
            raise ValueError(f"{path!r} is not a path below the root")
        return f"{self._prefix.rstrip('/')}/{path}".rstrip("/") if path and self._prefix else path or self._prefix

    @property
    def _backend(self) -> Backend:
        if self._backend_ is None:
            self._backend_ = _backend_for(self._scheme, self._bucket)
        return self._backend_


def storage_for(url: str) -> tuple[Storage, str]:
    """The widest storage that holds `url` (the disk, the bucket, the hub), and the path in it."""
    scheme, bucket, key = parse_url(url)
    if scheme == "file":
        return Storage("/"), key.lstrip("/")
    return Storage(f"{scheme}://{bucket}"), key


def _backend_for(scheme: str, bucket: str) -> Backend:
    if scheme == "file":
        from hfray.data.store_local import LocalStore

        return LocalStore()
    if scheme == "hf":
        from hfray.data.store_hub import HubStore

        return HubStore()
    from hfray.data.store_object import ObjectStore

    return ObjectStore(scheme, bucket)
