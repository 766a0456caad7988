"""From the paths of a job to its input files, in an order that never changes. Knows names; opens no file.

A path is a file, a folder (searched to the bottom for files of the format), a glob (`*`, `?`, `[ab]`, `**` for any
number of folders; on object stores too), or, with `format: huggingface`, a data set. Names that start with "." or "_"
are skipped in folders and globs, unless the glob spells such a name itself.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence

from hfray.data.base import FileInfo, FileRef, Format
from hfray.data.storage import Storage, storage_for
from hfray.data.urls import MAGIC, above_glob
from hfray.errors import SpecError

_SUFFIXES: dict[Format, tuple[str, ...]] = {
    "parquet": (".parquet", ".parq", ".pq"),
    "jsonl": (".jsonl", ".ndjson", ".json"),
    "csv": (".csv", ".tsv"),
    "text": (".txt", ".text"),
    "images": (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    "arrow": (".arrow",),
    "openai-batch": (".jsonl",),  # only where the job says so: its suffix is JSON Lines'
}
_COMPRESSIBLE: tuple[Format, ...] = ("jsonl", "csv", "text")
_SUFFIX_FORMATS: dict[str, Format] = {"openai-batch": "jsonl"}
"""What the suffixes of a format's files say, where it is something else."""
DATASET_FILES = ("state.json", "dataset_dict.json")
"""What tells a folder written by `save_to_disk`."""


def list_files(
    paths: Sequence[str], format: str = "auto", *, split: str | None = None, config: str | None = None
) -> list[FileRef]:
    """All input files: in the order of `paths`, within a folder or glob in the order of names, each once.

    format: one of the formats of files, "huggingface", or "auto" (by the files' suffixes).
    split, config: for "huggingface": which part of the data set; needed where there are several.
    Raises SpecError for a path that is not there (with the nearest name that is) and for files of mixed formats.
    """
    if format not in (*_SUFFIXES, "auto", "huggingface"):
        known = ", ".join((*_SUFFIXES, "huggingface", "auto"))
        close = difflib.get_close_matches(format, known.split(", "), 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise SpecError(f"input.format: unknown format {format!r}: {hint}known are {known}")
    found: dict[str, FileRef] = {}
    for path in paths:
        for file in _files_of(path, format, split, config):
            found.setdefault(file.url, file)
    files = list(found.values())
    for file in files[1:]:
        if file.format != files[0].format:
            raise SpecError(
                f"input.path: {files[0].url} is {files[0].format} but {file.url} is {file.format}: "
                "one job reads one format; say which with `format:`"
            )
    return files


def format_of(name: str) -> Format | None:
    """The format a file's suffix stands for."""
    lower = name.lower()
    plain = lower.removesuffix(".gz")
    for format, suffixes in _SUFFIXES.items():
        if plain.endswith(suffixes) and (plain == lower or format in _COMPRESSIBLE):
            return format
    return None


def expand(path: str) -> Iterator[tuple[str, FileInfo]]:
    """(URL, file) of a file, of a folder's visible files, or of a glob's matches. Raises SpecError if there is none."""
    storage, key = storage_for(path)
    info = storage.info(key) if key else None
    if info is not None:
        yield storage.url(key), info
        return
    is_glob = MAGIC.search(key) is not None
    folder = key
    matches = re.compile("")
    if is_glob:
        folder = above_glob(key)
        matches = _glob_pattern(key)
    show_hidden = is_glob and any(part[0] in "._" for part in key[len(folder) :].split("/") if part)
    is_empty = True
    for info in storage.list(folder):
        below = info.path[len(folder) :].lstrip("/")
        if not show_hidden and any(part[0] in "._" for part in below.split("/")):
            continue
        if not is_glob or matches.fullmatch(info.path):
            is_empty = False
            yield storage.url(info.path), info
    if is_empty:
        raise SpecError(_missing(storage, key, path, is_glob))


def _files_of(path: str, format: str, split: str | None, config: str | None) -> Iterator[FileRef]:
    if format == "auto" and _is_saved_dataset(path):
        format = "huggingface"
    if format == "huggingface":
        from hfray.data.huggingface import resolve

        yield from resolve(path, split, config)
        return
    if format == "images":
        next(expand(path))
        storage, key = storage_for(path)
        yield FileRef(storage.url(key), 0, "", "images")
        return
    storage, key = storage_for(path)
    is_folder = not MAGIC.search(key) and not (key and storage.exists(key))
    others: list[str] = []
    is_empty = True
    for url, info in expand(path):
        by_suffix = format_of(url)
        wanted = by_suffix if format == "auto" else format
        if by_suffix is None if format == "auto" else is_folder and by_suffix != _SUFFIX_FORMATS.get(format, format):
            others.append(url)
            continue
        is_empty = False
        if wanted == "images":
            yield FileRef(storage.url(key), 0, "", "images")
            return
        yield FileRef(url, info.size_bytes, info.version, wanted)  # type: ignore[arg-type]
    if is_empty:
        raise SpecError(_no_format(path, format, others))


def _is_saved_dataset(path: str) -> bool:
    storage, key = storage_for(path)
    return any(storage.exists(f"{key}/{name}".lstrip("/")) for name in DATASET_FILES)


def _no_format(path: str, format: str, others: list[str]) -> str:
    if format == "auto":
        return f"input.path: the format of {others[0]} cannot be told from its name: say it with `format:`"
    wanted = ", ".join(_SUFFIXES[format])  # type: ignore[index]
    return (
        f"input.path: {path} holds no {format} files ({wanted}), but {others[0]}"
        f"{f' and {len(others) - 1:,} others' if len(others) > 1 else ''}: change `format:`, or name them by a glob"
    )


def _missing(storage: Storage, key: str, path: str, is_glob: bool) -> str:
    if storage.is_folder(key or "") and not is_glob:
        return f"input.path: the folder {path} holds no files (names that start with . or _ do not count)"
    if is_glob:
        return f"input.path: no file matches {path}"
    parts = key.split("/")
    depth = next((d for d in range(len(parts) - 1, 0, -1) if storage.is_folder("/".join(parts[:d]))), 0)
    folder, name = "/".join(parts[:depth]), parts[depth]
    close = difflib.get_close_matches(name, storage.names(folder), 1)
    hint = f"did you mean {storage.url(f'{folder}/{close[0]}'.lstrip('/'))}?" if close else "check the path"
    data_set = "; for a data set of the hub say `format: huggingface`" if re.fullmatch(r"[\w.-]+/[\w.-]+", path) else ""
    return f"input.path: {path} does not exist: {hint}{data_set}"


def _glob_pattern(glob: str) -> re.Pattern[str]:
    parts = glob.split("/")
    pieces: list[str] = []
    for number, part in enumerate(parts):
        is_last = number == len(parts) - 1
        if part == "**":
            pieces.append(".*" if is_last else "(?:[^/]+/)*")
        else:
            pieces.append(_segment_pattern(part) + ("" if is_last else "/"))
    return re.compile("".join(pieces), re.DOTALL)


def _segment_pattern(segment: str) -> str:
    pieces: list[str] = []
    position = 0
    while position < len(segment):
        char = segment[position]
        close = segment.find("]", position + 2)
        if char == "*":
            pieces.append("[^/]*")
        elif char == "?":
            pieces.append("[^/]")
        elif char == "[" and close > 0:
            body = segment[position + 1 : close].replace("\\", "\\\\").replace("[", "\\[").replace("^", "\\^")
            pieces.append("[" + (f"^{body[1:]}" if body[0] == "!" else body) + "]")
            position = close
        else:
            pieces.append(re.escape(char))
        position += 1
    return "".join(pieces)
