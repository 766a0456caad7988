"""A small disk that tests fill."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

DISK_BYTES = 64 * 2**20


@contextlib.contextmanager
def mounted() -> Iterator[Path]:
    """A file system of 64 MB, under a short path (Ray puts sockets on it); skips where this user may not mount one."""
    folder = Path(tempfile.mkdtemp(prefix="r7-"))
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mount.returncode:
        folder.rmdir()
        pytest.skip(f"mounting a tmpfs is not permitted here: {mount.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
    folder.rmdir()


def fill(disk: Path, spare_bytes: int = 0) -> Path:
    """A file that leaves so much room on the disk."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        left = shutil.disk_usage(disk).free - spare_bytes
        with contextlib.suppress(OSError):  # others write too, so that it may be full a moment earlier
            while left > 0 and (written := file.write(bytes(min(left, 2**20)))):
                left -= written
    return ballast
