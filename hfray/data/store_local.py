"""A disk or a mounted file system. Keys are absolute paths. Raises OSError; `Storage` translates."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from hfray.data.base import FileInfo
from hfray.errors import DataError

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EXDEV}
_COPY_BYTES = 1 << 20
_ATTEMPTS = 3


class LocalStore:
    """Files under absolute paths."""

    def list(self, prefix: str) -> Iterator[FileInfo]:
        yield from _walk(prefix, set())

    def names(self, prefix: str) -> tuple[str, ...]:
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(prefix) as entries:
            return tuple(sorted(entry.name for entry in entries))
        return ()

    def info(self, key: str) -> FileInfo:
        stat = os.stat(key)
        if os.path.isdir(key):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), key)
        return FileInfo(key, stat.st_size, str(stat.st_mtime_ns))

    def is_folder(self, key: str) -> bool:
        return os.path.isdir(key)

    def open(self, key: str, buffer_bytes: int) -> BinaryIO:
        return open(key, "rb", buffering=buffer_bytes)

    def read_range(self, key: str, start: int, stop: int | None) -> bytes:
        with open(key, "rb", buffering=0) as file:
            file.seek(start)
            if stop is None:
                return file.readall()
            parts = []
            while start < stop and (part := file.read(stop - start)):
                parts.append(part)
                start += len(part)
            return b"".join(parts)

    def create_exclusive(self, key: str, data: bytes | Path, attempts: str) -> bool:
        attempt = Path(attempts) / f"{os.path.basename(key)}.{uuid.uuid4().hex}"
        try:
            if isinstance(data, Path) and data.parent.resolve() == Path(attempts).resolve():
                attempt = data
                _fsync(str(attempt), os.O_RDWR)
            else:
                _write_synced(str(attempt), data)
            return _link(str(attempt), key)
        except FileNotFoundError:
            if os.path.exists(key):
                return False
            if not os.path.isdir(attempts):
                raise DataError(
                    f"cannot create {key}: the attempts folder {attempts} is gone: another run took over this output"
                ) from None
            raise
        finally:
            for leftover in (attempt, data):
                if isinstance(leftover, Path):
                    with suppress(OSError):
                        leftover.unlink()

    def replace(self, key: str, data: bytes | Path) -> None:
        for attempt in range(_ATTEMPTS):
            try:
                with self.writer(key) as file:
                    _copy(data, file)
                break
            except FileNotFoundError:
                # Another run, without a lease, may have swept what looked half-written to it.
                if attempt == _ATTEMPTS - 1 or not os.path.isdir(os.path.dirname(key)):
                    raise
        if isinstance(data, Path):
            data.unlink()

    @contextmanager
    def writer(self, key: str) -> Iterator[BinaryIO]:
        folder, name = os.path.split(key)
        temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
        try:
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, key)
            _fsync(folder)
        finally:
            with suppress(OSError):
                os.unlink(temporary)

    def delete(self, key: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(key)

    def delete_prefix(self, prefix: str) -> None:
        # A late writer may add a file between the emptying of a folder and its removal.
        for _ in range(3):
            with suppress(FileNotFoundError):
                try:
                    shutil.rmtree(prefix)
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
                        raise
            if not os.path.lexists(prefix):
                return
        shutil.rmtree(prefix)

    def for_arrow(self, key: str) -> tuple[Any, str]:
        return None, key

    def make_dirs(self, key: str) -> None:
        os.makedirs(key, exist_ok=True)


def _walk(folder: str, above: set[tuple[int, int]]) -> Iterator[FileInfo]:
    """Every file below, in the order of its path; links are followed, a link to a folder above is not."""
    try:
        stat = os.stat(folder)
        with os.scandir(folder) as scan:
            entries = [(entry.name + "/" * entry.is_dir(), entry) for entry in scan]
    except (FileNotFoundError, NotADirectoryError):
        return
    here = (stat.st_dev, stat.st_ino)
    if here in above:
        return
    for name, entry in sorted(entries, key=lambda each: each[0]):
        if name.endswith("/"):
            yield from _walk(entry.path, above | {here})
        else:
            try:
                found = entry.stat()
            except FileNotFoundError:  # a broken link, or deleted since the listing
                continue
            yield FileInfo(entry.path, found.st_size, str(found.st_mtime_ns))


def _link(attempt: str, key: str) -> bool:
    try:
        os.link(attempt, key)
    except FileExistsError:
        # On NFS the reply to a successful link may be lost and the retried call then answers EEXIST.
        if not os.path.samestat(os.stat(attempt), os.stat(key)):
            return False
    except OSError as error:
        if error.errno in _NO_LINKS:
            raise DataError(
                f"cannot create {key}: this file system has no hard links ({error.strerror}), which exclusive "
                "creation needs: write to a local disk, to NFS or to an object store"
            ) from error
        raise
    os.unlink(attempt)
    _fsync(os.path.dirname(key))
    return True


def _write_synced(path: str, data: bytes | Path) -> None:
    with open(path, "xb") as file:
        _copy(data, file)
        file.flush()
        os.fsync(file.fileno())


def _copy(data: bytes | Path, file: BinaryIO) -> None:
    if isinstance(data, Path):
        with open(data, "rb") as source:
            shutil.copyfileobj(source, file, _COPY_BYTES)
    else:
        file.write(data)


def _fsync(path: str, flags: int = os.O_RDONLY) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
