"""The seal of a checkpoint: which files it has, how long they are, what is in them, and that we wrote them. Knows files
and a key; not what the files mean.

The manifest is written last, so a folder with a manifest is whole. Nothing is loaded of a folder before its manifest
holds: no file missing, added or changed, the signature ours, the folder ours alone to write.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hfray.errors import DataError
from hfray.training.secret import KEY_FILE_VARIABLE, SecretKey

MANIFEST = "manifest.json"
_UNFINISHED = "manifest.json.unfinished"
_FORMAT = 1
_CONTEXT = b"hfray checkpoint manifest\n"
"""Signed before the content, so that a signature of anything else is none of a manifest."""
MAX_MANIFEST_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a checkpoint. name: its path below the folder, with `/`."""

    name: str
    bytes: int
    sha256: str


def seal(folder: Path, key: SecretKey, known: Iterable[Entry] = ()) -> None:
    """Closes the folder to others (0700) and writes its manifest, synced, as the last of its files.

    known: entries of files whose digests have been computed as they were written, also of files that other machines
    wrote and that are not here yet. Raises DataError: a link among the files, or the disk fails.
    """
    entries = {entry.name: entry for entry in known}
    try:
        os.chmod(folder, 0o700)
        for name in file_names(folder) - {MANIFEST, _UNFINISHED} - entries.keys():
            entries[name] = entry_of(folder, name, sync=True)
        files = [asdict(entries[name]) for name in sorted(entries)]
        content = {"format": _FORMAT, "files": files}
        content["hmac"] = key.sign(_CONTEXT + _canonical(content))
        unfinished = folder / _UNFINISHED
        with unfinished.open("wb") as file:
            file.write(json.dumps(content, indent=1).encode())
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(folder / MANIFEST)
        sync_folder(folder)
    except OSError as error:
        raise DataError(
            f"checkpoint {folder}: cannot be sealed: {error.strerror}; free space, or mend the disk"
        ) from error


def is_sealed(folder: Path) -> bool:
    """Whether its writing came to the end; whether it is intact is for `verify` to say."""
    return (folder / MANIFEST).is_file()


def unseal(folder: Path) -> None:
    """From here on it counts as unfinished."""
    (folder / MANIFEST).unlink(missing_ok=True)


def verify(folder: Path, key: SecretKey, *, part: int = 0, parts: int = 1) -> tuple[Entry, ...]:
    """All files that the manifest names. part, parts: this process reads every parts-th file for its digest, its peers
    the others; names, sizes and the signature are checked by all.

    Raises DataError: there is no manifest, it is not signed with this key, others may write to the folder, or a file is
    missing, added or changed; names it.
    """
    with _readable(folder):
        entries = _listed(folder, key)
        for entry in entries[part::parts]:
            _check_digest(folder, entry)
    return entries


def read_verified(folder: Path, key: SecretKey, name: str) -> bytes:
    """The content of one file, for which none of the others is read: their digests are `verify`'s to check before they
    are loaded. Raises DataError as it does."""
    with _readable(folder):
        entries = {entry.name: entry for entry in _listed(folder, key)}
        if name not in entries:
            raise _damaged(folder, f"{name} is missing")
        _check_digest(folder, entries[name])
        return (folder / name).read_bytes()


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"checkpoint {folder}: cannot be read: {error.strerror}: {error.filename}") from error


def _listed(folder: Path, key: SecretKey) -> tuple[Entry, ...]:
    """What the manifest names, all there and of the right sizes."""
    _check_folder(folder)
    entries = _read(folder, key)
    _check_names(folder, {entry.name for entry in entries})
    for entry in entries:
        found = (folder / entry.name).stat().st_size
        if found != entry.bytes:
            raise _damaged(folder, f"{entry.name} has {found:,} bytes in place of {entry.bytes:,}")
    return entries


def _check_digest(folder: Path, entry: Entry) -> None:
    if entry_of(folder, entry.name).sha256 != entry.sha256:
        raise _damaged(folder, f"{entry.name} has been changed since it was written")


def entry_of(folder: Path, name: str, *, sync: bool = False) -> Entry:
    """Reads the file. Raises OSError."""
    descriptor = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if sync:
            os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256")
        return Entry(name, os.fstat(file.fileno()).st_size, digest.hexdigest())


def file_names(folder: Path) -> set[str]:
    """Of everything below the folder that is no folder. Raises DataError: one is a link, or no plain file."""
    names = set()
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            mode = path.lstat().st_mode
            relative = path.relative_to(folder).as_posix()
            if stat.S_ISREG(mode):
                names.add(relative)
            elif not stat.S_ISDIR(mode):
                raise _damaged(folder, f"{relative} is no plain file")
    return names


def sync_folder(folder: Path) -> None:
    """A new name survives a loss of power once its folder is synced. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(folder: Path, key: SecretKey) -> tuple[Entry, ...]:
    path = folder / MANIFEST
    if not is_sealed(folder):
        raise DataError(f"checkpoint {folder}: it has no {MANIFEST}, so its writing was cut off; use an earlier one")
    if path.is_symlink() or path.stat().st_size > MAX_MANIFEST_BYTES:
        raise _damaged(folder, f"{MANIFEST} is none")
    try:
        content = json.loads(path.read_bytes())
        signature = str(content.pop("hmac"))
        signed = _CONTEXT + _canonical(content)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise _damaged(folder, f"{MANIFEST} cannot be read") from None
    if not hmac.compare_digest(signature.encode(), key.sign(signed).encode()):
        raise DataError(
            f"checkpoint {folder}: {MANIFEST} has been changed or is not signed with this key, so the checkpoint is "
            f"not of this user; name the key that it was written with as {KEY_FILE_VARIABLE}, or start over with "
            "--restart"
        )
    if content.get("format") != _FORMAT:
        raise DataError(f"checkpoint {folder}: it is of another version of hfray; finish it with that one")
    return tuple(Entry(**each) for each in content["files"])


def _check_folder(folder: Path) -> None:
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode):
        raise DataError(f"checkpoint {folder}: is no folder")
    if facts.st_uid != os.geteuid():
        raise DataError(f"checkpoint {folder}: belongs to another user; copy it to a folder of your own")
    if stat.S_IMODE(facts.st_mode) & 0o022:
        raise DataError(f"checkpoint {folder}: other users may write to it; if none did, run `chmod 700` on it")


def _check_names(folder: Path, expected: set[str]) -> None:
    found = file_names(folder) - {MANIFEST}
    if missing := sorted(expected - found):
        raise _damaged(folder, f"{missing[0]} is missing")
    if added := sorted(found - expected):
        raise _damaged(folder, f"{added[0]} has been added since it was written")


def _damaged(folder: Path, what: str) -> DataError:
    return DataError(f"checkpoint {folder}: {what}; start over with --restart, or use an earlier one")


def _canonical(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
