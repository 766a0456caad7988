"""Files that lie at the top of an output, such as those of a model: made in a draft folder, then given their names, the
files that make it a model last of all. Knows ledgers and files; not models.

`_SUCCESS` comes after them. A run that was killed in between leaves a journal, by which the next one removes what is
there; files of somebody else are never touched.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hfray.data.ledger import Ledger
from hfray.data.store_errors import translated
from hfray.errors import DataError

JOURNAL = "_work/published.json"


@contextmanager
def draft_folder(ledger: Ledger) -> Iterator[Path]:
    """An empty folder on this machine's disk to make files in, removed at the end: beside the output if that is on a
    disk, where they are given their names without being copied."""
    if not ledger.storage.is_local:
        with tempfile.TemporaryDirectory(prefix="hfray-draft-") as temporary:
            folder = Path(temporary) / "files"
            folder.mkdir()
            yield folder
        return
    attempts = ledger.storage.local_path(ledger.attempts)
    draft = attempts / f"draft-{uuid.uuid4().hex}"
    with translated(str(draft), "make the folder"):
        (draft / "files").mkdir(parents=True)
    try:
        yield draft / "files"
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def publish(ledger: Ledger, folder: Path, last: Sequence[str]) -> dict[str, int]:
    """Moves every file below `folder` to the top of the output, `last` after the others and in this order. Name to size
    in bytes.

    What was published there before is removed first, unless it has the same name. Raises DataError when the output was
    started over for another job meanwhile.
    """
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    mode = _mode(folder)
    for name in names:
        (folder / name).chmod(mode)  # safetensors writes files that nobody else can read
    names = [name for name in names if name not in last] + [name for name in last if name in names]
    sizes = {name: (folder / name).stat().st_size for name in names}
    _check_owner(ledger)
    before = published(ledger)
    ledger.write(JOURNAL, json.dumps(sorted({*before, *names})).encode())
    for name in [*reversed(last), *before]:  # without these it is no model, so nobody loads a half of one
        ledger.delete(name)
    for name in names:
        _check_owner(ledger)
        _move(ledger, folder / name, name)
    ledger.write(JOURNAL, json.dumps(names).encode())
    return sizes


def published(ledger: Ledger) -> list[str]:
    """The files that runs of this output have published, or begun to."""
    if not ledger.storage.exists(JOURNAL):
        return []
    found: list[str] = json.loads(ledger.read(JOURNAL))
    return found


def unpublish(ledger: Ledger, last: Collection[str]) -> None:
    """Removes what was published, `last` first."""
    names = published(ledger)
    for name in sorted(names, key=lambda each: each not in last):
        ledger.delete(name)
    ledger.delete(JOURNAL)


def _check_owner(ledger: Ledger) -> None:
    if (ledger.identity() or {}).get("fingerprint") != ledger.fingerprint:
        raise DataError(f"{ledger.url} was started over by another run; this one stops")


def _mode(folder: Path) -> int:
    """What a new file gets here."""
    new = folder / ".new"
    new.touch()
    mode = new.stat().st_mode & 0o777
    new.unlink()
    return mode


def _move(ledger: Ledger, file: Path, name: str) -> None:
    storage = ledger.storage
    if not storage.is_local:
        storage.replace(name, file)
        return
    folder, _, _ = name.rpartition("/")
    if folder:
        storage.make_dirs(folder)
    attempts = file.parent.relative_to(storage.local_path("")).as_posix()
    storage.create_exclusive(name, file, attempts)
