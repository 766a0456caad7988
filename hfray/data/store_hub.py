"""Data files on the Hugging Face hub, read only. Keys are `datasets/org/name@revision/path`.

Raises the hub client's errors; `Storage` translates.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, cast

from hfray.data.base import FileInfo
from hfray.errors import DataError


class HubStore:
    """The files of hub repositories."""

    def __init__(self) -> None:
        from huggingface_hub import HfFileSystem

        self._files = HfFileSystem()

    def list(self, prefix: str) -> Iterator[FileInfo]:
        found = self._files.find(prefix, detail=True)
        for path in sorted(found):
            yield _info(path, found[path])

    def names(self, prefix: str) -> tuple[str, ...]:
        try:
            return tuple(sorted(entry["name"].rsplit("/", 1)[-1] for entry in self._files.ls(prefix, detail=True)))
        except FileNotFoundError:
            return ()

    def info(self, key: str) -> FileInfo:
        found = self._files.info(key)
        if found["type"] != "file":
            raise IsADirectoryError(f"{key} is a folder")
        return _info(key, found)

    def is_folder(self, key: str) -> bool:
        return bool(self._files.isdir(key))

    def open(self, key: str, buffer_bytes: int) -> BinaryIO:
        return cast(BinaryIO, self._files.open(key, "rb", block_size=max(buffer_bytes, 1 << 20)))

    def read_range(self, key: str, start: int, stop: int | None) -> bytes:
        return bytes(self._files.cat_file(key, start=start, end=stop))

    def create_exclusive(self, key: str, data: bytes | Path, attempts: str) -> bool:
        raise _read_only(key)

    def replace(self, key: str, data: bytes | Path) -> None:
        raise _read_only(key)

    def writer(self, key: str) -> AbstractContextManager[BinaryIO]:
        raise _read_only(key)

    def delete(self, key: str) -> None:
        raise _read_only(key)

    def delete_prefix(self, prefix: str) -> None:
        raise _read_only(prefix)

    def make_dirs(self, key: str) -> None:
        raise _read_only(key)

    def for_arrow(self, key: str) -> tuple[Any, str]:
        raise _read_only(key)


def _info(path: str, found: dict[str, Any]) -> FileInfo:
    return FileInfo(path, found["size"] or 0, str(found.get("blob_id") or found.get("xet_hash") or ""))


def _read_only(key: str) -> DataError:
    return DataError(f"cannot write hf://{key}: hfray only reads from the hub; write to a folder or an object store")
