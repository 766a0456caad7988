"""The key that checkpoints are sealed with: where it is kept, and what may be done with it. Knows files of the
operator; not checkpoints.

The key lies outside every checkpoint, in a file of the user (0600) that the driver reads; workers get it from the
driver as a `SecretKey` in the worker function's configuration, so the nodes of a cluster need no common file. What that
exposes: while the run lasts the key is in the memory of its Ray processes and in the arguments that Ray keeps of its
actors, so whoever may submit work to that Ray has it; such a person can run code as the same user anyway. It is in no
file of a checkpoint and in no log: Ray shows a worker function's configuration in its dashboard by `str`, which here
says nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from hfray.errors import EngineError

KEY_FILE_VARIABLE = "HFRAY_CHECKPOINT_KEY_FILE"
MIN_KEY_BYTES = 32
MAX_KEY_BYTES = 4096


@dataclass(frozen=True, slots=True)
class SecretKey:
    """Signs, and does not show itself."""

    value: bytes = field(repr=False)

    def sign(self, content: bytes) -> str:
        """HMAC-SHA256 (RFC 2104), in hexadecimal digits."""
        return hmac.new(self.value, content, hashlib.sha256).hexdigest()


def key_file() -> Path:
    """`$HFRAY_CHECKPOINT_KEY_FILE`, else `hfray/checkpoint.key` below `$XDG_STATE_HOME` or `~/.local/state`."""
    named = os.environ.get(KEY_FILE_VARIABLE)
    if named:
        return Path(named)
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "hfray" / "checkpoint.key"


def secret_key() -> SecretKey:
    """The user's key; made at the first call.

    Raises EngineError: the file cannot be read or made, others may read it or change it, or it is no key.
    """
    path = key_file()
    try:
        if not path.exists():
            make_secret_file(path)
        return SecretKey(_read(path))
    except OSError as error:
        raise EngineError(
            f"key of checkpoints: {path} cannot be used: {error.strerror}; name another file as {KEY_FILE_VARIABLE}"
        ) from error


def make_secret_file(path: Path) -> None:
    """64 random hexadecimal digits, for the user's eyes only; what is there already stays. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    attempt = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(attempt, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(32).encode())
            file.flush()
            os.fsync(file.fileno())
        # Of two that make it at once one wins, and both read what the winner wrote.
        with contextlib.suppress(FileExistsError):
            os.link(attempt, path)
    finally:
        attempt.unlink()


def _read(path: Path) -> bytes:
    # A file that root has mounted, such as a Kubernetes secret, which is a link, will do as well as one's own.
    with path.open("rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise EngineError(f"key of checkpoints: {path} is no file; name one as {KEY_FILE_VARIABLE}")
        if facts.st_uid not in (os.geteuid(), 0):
            raise EngineError(f"key of checkpoints: {path} belongs to another user; name one as {KEY_FILE_VARIABLE}")
        if stat.S_IMODE(facts.st_mode) & 0o027:
            raise EngineError(f"key of checkpoints: other users may read or change {path}; run `chmod 600` on it")
        content = file.read(MAX_KEY_BYTES + 1).strip()
    if not MIN_KEY_BYTES <= len(content) <= MAX_KEY_BYTES:
        raise EngineError(
            f"key of checkpoints: {path} has {len(content)} bytes, a key has {MIN_KEY_BYTES} to {MAX_KEY_BYTES}; "
            "remove it, and a new one is made (checkpoints of the old one cannot be continued then)"
        )
    return content
