"""One run at a time on an output folder. The lease saves work; the ledger alone gives correctness.

The holder beats once a second. Another starter gives up at once, and names the holder, when that is a live process of
this machine, and takes over when it is dead. A frozen one, or one on another machine, is watched for a few beats: if
they go on it lives.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hfray.data.ledger import Ledger
from hfray.data.storage import Storage
from hfray.errors import DataError, LeaseHeld

LEASE = "_work/lease.json"
BEAT_S = 1.0
WATCH_S = 3.5


class Lease:
    """Held while the driver works. `lost` is set when another run has taken over."""

    def __init__(self, ledger: Ledger) -> None:
        self._storage = ledger.storage
        self._attempts = ledger.attempts
        self._id = uuid.uuid4().hex
        self._beats = 0
        self._stop = threading.Event()
        self.lost = threading.Event()
        self._thread = threading.Thread(target=self._beat_forever, name="hfray-lease", daemon=True)

    def acquire(self) -> None:
        """Raises LeaseHeld, within WATCH_S plus a second, while another live run holds the folder."""
        while not self._storage.create_exclusive(LEASE, self._content(), self._attempts):
            holder = self._read()
            if holder is None:
                continue
            alive = _lives_here(holder)
            if alive is None:
                alive = self._beats_on(holder)
            if alive:
                raise _held(holder)
            current = self._read()
            if current is not None and current["id"] == holder["id"]:
                # Overwriting could race with a third starter; deleting first lets the exclusive create decide.
                with contextlib.suppress(DataError):
                    self._storage.delete(LEASE)
        self._thread.start()

    def release(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        with contextlib.suppress(DataError):  # a lease that cannot be given back is taken over from a dead process
            holder = None if self.lost.is_set() else self._read()
            if holder is not None and holder["id"] == self._id:
                self._storage.delete(LEASE)

    def check(self) -> None:
        """Raises LeaseHeld when another run has taken over (this one was frozen or cut off)."""
        holder = None if self.lost.is_set() else self._read()
        if holder is None or holder["id"] != self._id:
            self.lost.set()
            raise LeaseHeld("another run has taken over this output while this one stood still; nothing is lost")

    def _beats_on(self, holder: dict[str, Any]) -> bool:
        deadline = time.monotonic() + WATCH_S
        while time.monotonic() < deadline:
            time.sleep(0.25)
            current = self._read()
            if current is None:
                return False
            if current["id"] != holder["id"] or current["beats"] != holder["beats"]:
                return True
        return False

    def _beat_forever(self) -> None:
        while not self._stop.wait(BEAT_S):
            try:
                holder = self._read()
                if holder is None or holder["id"] != self._id:
                    self.lost.set()
                    return
                self._beats += 1
                self._storage.replace(LEASE, self._content())
            except DataError:
                continue  # a full disk or a lost store stops the job where it writes, with a better message

    def _read(self) -> dict[str, Any] | None:
        return _read(self._storage)

    def _content(self) -> bytes:
        return json.dumps(
            {
                "id": self._id,
                "host": socket.gethostname(),
                "boot": _boot_id(),
                "pid": os.getpid(),
                "started": _process(os.getpid())[1],
                "since": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
                "beats": self._beats,
            }
        ).encode()


@contextlib.contextmanager
def held_lease(ledger: Ledger) -> Iterator[Lease]:
    """The lease for the length of a `with`."""
    lease = Lease(ledger)
    lease.acquire()
    try:
        yield lease
    finally:
        lease.release()


def refuse_live_holder(ledger: Ledger) -> None:
    """Raises LeaseHeld when a live process of this machine holds the output; the quick look before anything is loaded.

    Decides nothing else: who works on the output is settled by `held_lease`.
    """
    holder = _read(ledger.storage)
    if holder is not None and _lives_here(holder):
        raise _held(holder)


def _read(storage: Storage) -> dict[str, Any] | None:
    """The lease there is. Raises DataError when the store does not answer: that is no sign of a lost lease."""
    try:
        holder: dict[str, Any] = json.loads(storage.read_bytes(LEASE))
    except DataError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return None
        raise
    return holder


def _held(holder: dict[str, Any]) -> LeaseHeld:
    return LeaseHeld(
        f"another run of this job is working on the same output: process {holder['pid']} on {holder['host']}, "
        f"since {holder['since']}; wait for it, or stop it"
    )


def _lives_here(holder: dict[str, Any]) -> bool | None:
    """Whether the holder's process lives on this machine; None if it is frozen, or on another one: beats decide."""
    if not holder["started"] or holder["host"] != socket.gethostname() or holder["boot"] != _boot_id():
        return None
    state, started = _process(holder["pid"])
    if started != holder["started"] or state in "ZX":
        return False
    return None if state in "Tt" else True


def _boot_id() -> str:
    """Two containers of one machine share a boot id and a host name at worst; their process tables differ, so the
    process namespace is part of it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _process(pid: int) -> tuple[str, str | None]:
    """(state letter, start time in clock ticks since boot) of a process; ("X", None) for one that is gone. proc(5)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return "X", None
    return fields[0], fields[19]
