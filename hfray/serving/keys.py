"""API keys at a gateway: from an Authorization header to the entry of the keys file. Knows hashes and when the file
changed; not HTTP, not limits. A key's text is held only while it is looked up, and is in no log and no repr."""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

from hfray.errors import SpecError
from hfray.serving.keys_file import Key, Stamp, read_keys

KEY_PREFIX = "hfray-"
NUM_KEY_BYTES = 32
MAX_HEADER_CHARS = 1024
LOOK_EVERY_S = 1.0
_log = logging.getLogger(__name__)


def new_key() -> tuple[str, str]:
    """A new key's text, to be shown once, and its SHA-256 in hexadecimal, to be kept."""
    text = KEY_PREFIX + secrets.token_urlsafe(NUM_KEY_BYTES)
    return text, hashlib.sha256(text.encode("ascii")).hexdigest()


class KeyRing:
    """The keys of a file, which may change while the ring is used: within about a second a change counts."""

    def __init__(self, path: Path, keys: tuple[Key, ...], stamp: Stamp, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._entries = _digests(keys)
        self._stamp: Stamp | None = stamp
        self._looked_at = clock()
        self._reading = threading.Lock()

    @classmethod
    def load(cls, path: str | Path, *, clock: Callable[[], float] = time.monotonic) -> KeyRing:
        """Raises SpecError for a file that is not right, or that others may open."""
        keys, stamp = read_keys(Path(path))
        return cls(Path(path), keys, stamp, clock)

    def __repr__(self) -> str:
        return f"KeyRing({str(self._path)!r}, {len(self._entries)} keys)"

    def find(self, header_value: str | bytes | None) -> Key | None:
        """The entry of `Bearer KEY`; None for everything else, and for a key that is disabled.

        How long it takes depends on the number of keys, not on which of them is like the one given.
        """
        self._look()
        text = header_value.decode("latin-1") if isinstance(header_value, bytes) else header_value or ""
        scheme, _, credentials = text.partition(" ")
        if scheme.lower() != "bearer" or len(text) > MAX_HEADER_CHARS:
            return None
        digest = hashlib.sha256(credentials.strip(" ").encode("utf-8", "surrogatepass")).digest()
        found: Key | None = None
        for known, key in self._entries:
            if hmac.compare_digest(known, digest):
                found = key
        return None if found is None or found.disabled else found

    def entry(self, key_id: str) -> Key | None:
        """The entry of a key that has been found before; None if it is gone or disabled by now."""
        self._look()
        found = next((key for _, key in self._entries if key.id == key_id), None)
        return None if found is None or found.disabled else found

    def _look(self) -> None:
        """At most once a second; a changed file is read beside the event loop, because YAML takes its time."""
        now = self._clock()
        if now - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = now
        try:
            stamp = Stamp.of(self._path.stat())
        except OSError:
            stamp = None
        if stamp != self._stamp and self._reading.acquire(blocking=False):
            threading.Thread(target=self._read, args=(stamp,), name="hfray-keys", daemon=True).start()

    def _read(self, seen: Stamp | None) -> None:
        try:
            keys, stamp = read_keys(self._path)
            self._entries, self._stamp = _digests(keys), stamp
            _log.info("%s: read again, %d keys", self._path, len(keys))
        except SpecError as error:
            self._stamp = seen  # so that this content is spoken of once
            _log.error("the keys of before stay in force: %s", error)
        finally:
            self._reading.release()


def _digests(keys: tuple[Key, ...]) -> tuple[tuple[bytes, Key], ...]:
    return tuple((bytes.fromhex(key.sha256), key) for key in keys)
