"""Data sets of the Hugging Face world as plain files: a folder of `save_to_disk`, a folder of data files, a hub id.

Knows the `datasets` library's rules for which files make which split; downloads no data, runs no script. The files
found are then read, by ranges where they lie, by the formats of this package.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

from hfray.data.base import FileRef, Format
from hfray.data.storage import Storage, storage_for
from hfray.data.store_errors import translated
from hfray.errors import DataError, SpecError

_FORMATS: dict[str, Format] = {"parquet": "parquet", "json": "jsonl", "csv": "csv", "text": "text", "arrow": "arrow"}


def resolve(path: str, split: str | None, config: str | None) -> Iterator[FileRef]:
    """The data files of one split, in the data set's own order.

    path: a folder, or `organisation/name`, `organisation/name@revision` on the hub.
    Raises SpecError when the data set, the configuration or the split is not there or is not said although there are
    several, and when its files are of a kind hfray does not read; DataError when the hub cannot be reached.
    """
    storage, key = storage_for(path)
    is_hub_url = path.startswith("hf://")
    if not is_hub_url and storage.exists(f"{key}/dataset_dict.json"):
        splits = _load(storage, f"{key}/dataset_dict.json").get("splits", [])
        yield from _saved(storage, f"{key}/{_choose(splits, split, path)}")
    elif not is_hub_url and storage.exists(f"{key}/state.json"):
        yield from _saved(storage, key)
    elif not is_hub_url and storage.is_local and storage.is_folder(key):
        yield from _data_files(storage.url(key), None, split, config)
    elif not is_hub_url and "://" in path:
        raise SpecError(
            f"input.path: {path} holds no data set written by save_to_disk: name its files and their format"
        )
    else:
        name, _, revision = path.removeprefix("hf://").removeprefix("datasets/").partition("@")
        if name.count("/") > 1 or name.startswith((".", "/", "~")):
            raise SpecError(f"input.path: {path} is neither a folder nor a data set of the hub (organisation/name)")
        yield from _data_files(name, revision or None, split, config)


def hub_name(path: str) -> str | None:
    """`organisation/name` of a data set of the hub, from what `resolve` takes; None for one that lies elsewhere."""
    if not path.startswith("hf://"):
        storage, key = storage_for(path)
        if "://" in path or storage.is_folder(key):
            return None
    return path.removeprefix("hf://").removeprefix("datasets/").partition("@")[0]


def splits_of(path: str) -> tuple[str, ...]:
    """The splits of a folder that `DatasetDict.save_to_disk` wrote; () for anything else."""
    storage, key = storage_for(path)
    if path.startswith("hf://") or not storage.exists(f"{key}/dataset_dict.json"):
        return ()
    return tuple(str(name) for name in _load(storage, f"{key}/dataset_dict.json").get("splits", []))


def _saved(storage: Storage, key: str) -> Iterator[FileRef]:
    """What `Dataset.save_to_disk` wrote: Arrow streams named in state.json."""
    state = _load(storage, f"{key}/state.json")
    if state.get("_indices_files") or state.get("_indices_data_files") or storage.exists(f"{key}/indices.arrow"):
        raise DataError(
            f"{storage.url(key)}: was saved with an indices mapping (after select, filter or shuffle), so its files do "
            "not hold its rows in order: save flatten_indices() of it"
        )
    names = [str(each["filename"]) for each in state.get("_data_files", [])]
    if not names:
        raise DataError(f"{storage.url(key)}: its state.json names no data files: save the data set again")
    for name in names:
        if "/" in name or name.startswith("."):
            raise DataError(f"{storage.url(key)}: its state.json names the file {name!r} outside the folder")
        yield _file(storage, f"{key}/{name}", "arrow")


def _data_files(path: str, revision: str | None, split: str | None, config: str | None) -> Iterator[FileRef]:
    builder = _builder(path, revision, config)
    format = _FORMATS.get(builder.name)
    if format is None:
        known = ", ".join(_FORMATS)
        raise SpecError(f"input.path: the data set {path} is made of {builder.name} files; hfray reads {known}")
    files = {str(name): list(urls) for name, urls in (builder.config.data_files or {}).items()}
    for url in files[_choose(list(files), split, path)]:
        yield _file(*storage_for(str(url)), format)


def _builder(path: str, revision: str | None, config: str | None) -> Any:
    """The `datasets` builder, which knows the files of each split; it is not asked to prepare anything."""
    from datasets import load_dataset_builder
    from datasets.exceptions import DatasetNotFoundError

    with tempfile.TemporaryDirectory(prefix="hfray-") as cache, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with translated(path, "look up the data set"):
                return load_dataset_builder(path, config, revision=revision, cache_dir=cache)
        except (ValueError, RuntimeError) as error:  # no such configuration, several of them, or a script
            raise SpecError(f"input.path: the data set {path}: {' '.join(str(error).split())[:500]}") from error
        except DataError as error:
            cause = error.__cause__
            if isinstance(cause, DatasetNotFoundError | FileNotFoundError):
                raise SpecError(f"input.path: the data set {path}: {' '.join(str(cause).split())[:500]}") from cause
            raise


def _choose(splits: list[str], split: str | None, path: str) -> str:
    names = ", ".join(splits) or "none"
    if split is None:
        if len(splits) != 1:
            raise SpecError(f"input.split: the data set {path} has several splits ({names}): say which one")
        return splits[0]
    if split not in splits:
        raise SpecError(f"input.split: the data set {path} has no split {split!r}: it has {names}")
    return split


def _load(storage: Storage, path: str) -> dict[str, Any]:
    try:
        found = json.loads(storage.read_bytes(path))
    except ValueError as error:
        raise DataError(f"{storage.url(path)}: is not JSON ({error}): save the data set again") from error
    if not isinstance(found, dict):
        raise DataError(f"{storage.url(path)}: is not a JSON object: save the data set again")
    return found


def _file(storage: Storage, key: str, format: Format) -> FileRef:
    info = storage.info(key)
    if info is None:
        raise DataError(f"{storage.url(key)}: is gone: the data set names it")
    return FileRef(storage.url(key), info.size_bytes, info.version, format)
