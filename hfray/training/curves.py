"""What a run tells TensorBoard, in the output's `runs`. Knows a folder; the callback is Transformers' own."""

from __future__ import annotations

import os
from pathlib import Path

from hfray.data.storage import Storage

CURVES_FOLDER = "runs"


def show_curves(storage: Storage, scratch: Path) -> None:
    """Tells Transformers where, before its callbacks are made. scratch: of this process, for an object store."""
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(_folder(storage, scratch))


def keep_curves(storage: Storage, scratch: Path) -> None:
    """Puts them where the output is, if that is not on a disk. Raises DataError."""
    folder = _folder(storage, scratch)
    if not storage.is_local and folder.is_dir():
        for file in sorted(each for each in folder.rglob("*") if each.is_file()):
            storage.replace(f"{CURVES_FOLDER}/{file.relative_to(folder).as_posix()}", file)


def _folder(storage: Storage, scratch: Path) -> Path:
    return storage.local_path(CURVES_FOLDER) if storage.is_local else scratch / CURVES_FOLDER
