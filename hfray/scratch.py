"""This user's folder on this machine's disk, for logs and decoded examples. What lies there may be lost at any time."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from hfray.errors import EngineError


def own_folder() -> Path:
    """Where it is, or would be."""
    return Path(tempfile.gettempdir()) / f"hfray-{os.getuid()}"


def make_own_folder() -> Path:
    """Made where it is missing, for its user's eyes only: logs may quote rows. Raises EngineError where something else
    has its name: everybody may write beside it."""
    folder = own_folder()
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise EngineError(f"{folder}: cannot be made: {error.strerror}; set TMPDIR to another place") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise EngineError(f"{folder}: is not a folder of this user; remove it, or set TMPDIR to another place")
    folder.chmod(0o700)
    return folder
