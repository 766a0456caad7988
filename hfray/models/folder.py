"""The files of a folder that are a model: how they were when they were read, and whether they are so still.

Knows names, times and contents of files; not what is in them, not who asks.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hfray.models.result_files import FACTS_FILE, model_files

_NEVER_LOADED = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".ot", ".onnx", ".gguf", ".md")


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file as it was when it was read."""

    size_bytes: int
    times_ns: tuple[int, int]
    """Of the last change of its content, which anybody can set, and of its entry, which nobody can."""
    sha256: str


def visible_files(folder: Path) -> tuple[str, ...]:
    """All files but hidden ones (.git, .cache, .gitattributes), which are no part of the model; sorted, with "/"
    between folders."""
    names = (file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    return tuple(sorted(name.as_posix() for name in names if not any(part.startswith(".") for part in name.parts)))


def folder_files(folder: Path, *, weights: bool = True) -> tuple[str, ...]:
    """The model's own among the visible ones; `weights`: with the safetensors, which a tokenizer does without."""
    files = visible_files(folder)
    if FACTS_FILE in files:  # beside the model are the job's own files, some of which change
        files = model_files(files)
    return tuple(name for name in files if weights or not name.endswith(".safetensors"))


def read_records(folder: Path, files: Iterable[str]) -> dict[str, FileRecord]:
    """By name, of all but those that hfray never loads (pickled weights, read-mes). Raises OSError.

    Every byte counts: a fine-tuned model can differ from its base in a few rows of one file of the same size.
    """
    names = _loadable(files)
    with _threads() as pool:
        return dict(zip(names, pool.map(lambda name: _read(folder / name), names), strict=True))


def digest_of(records: Mapping[str, FileRecord]) -> str:
    """sha256 (hex) over the names and sha256 of the files, in their order."""
    return hashlib.sha256(json.dumps([(name, each.sha256) for name, each in records.items()]).encode()).hexdigest()


def changes_since(records: Mapping[str, FileRecord], folder: Path, files: Iterable[str]) -> list[str]:
    """What is other in a folder that has these files now, in words, one text per file; empty if the digest would be
    the same. Raises OSError.

    A file of the recorded size and times is not read: to read a large model twice can take longer than to start it.
    """
    names = _loadable(files)

    def change(name: str) -> str | None:
        record = records.get(name)
        if record is None:
            return f"{name} is new"
        file = folder / name
        if _size_and_times(file.stat()) == (record.size_bytes, record.times_ns):
            return None
        return None if _read(file).sha256 == record.sha256 else f"{name} has changed"

    with _threads() as pool:
        found = [each for each in pool.map(change, names) if each is not None]
    return [*(f"{name} is missing" for name in records if name not in names), *found]


def _loadable(files: Iterable[str]) -> list[str]:
    return [name for name in files if not name.endswith(_NEVER_LOADED)]


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1))


def _read(file: Path) -> FileRecord:
    with file.open("rb") as handle:
        # Before the content: a file that is written to while it is read has later times than these.
        size_bytes, times_ns = _size_and_times(os.fstat(handle.fileno()))
        return FileRecord(size_bytes, times_ns, hashlib.file_digest(handle, "sha256").hexdigest())


def _size_and_times(stat: os.stat_result) -> tuple[int, tuple[int, int]]:
    return stat.st_size, (stat.st_mtime_ns, stat.st_ctime_ns)
