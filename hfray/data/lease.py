"""One run at a time on an output folder. The lease saves work; the ledger alone gives correctness.

The holder beats once a second. Another starter watches for a few beats: if they go on it gives up and names the
holder; if they stop (killed, frozen, its machine gone), or the holder is a dead process of this machine, it takes over.
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
            if not _is_dead_here(holder) and self._beats_on(holder):
                raise LeaseHeld(
                    f"another run of this job is working on the same output: process {holder['pid']} on "
                    f"{holder['host']}, since {holder['since']}; wait for it, or stop it"
                )
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
        if not self.lost.is_set():
            holder = self._read()
            if holder is not None and holder["id"] == self._id:
                with contextlib.suppress(DataError):
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
        try:
            if not self._storage.exists(LEASE):
                return None
            holder: dict[str, Any] = json.loads(self._storage.read_bytes(LEASE))
            return holder
        except (DataError, ValueError):
            return None  # deleted between the two calls

    def _content(self) -> bytes:
        return json.dumps(
            {
                "id": self._id,
                "host": socket.gethostname(),
                "boot": _boot_id(),
                "pid": os.getpid(),
                "started": _process_start(os.getpid()),
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


def _is_dead_here(holder: dict[str, Any]) -> bool:
    """Whether the holder ran on this machine, since this boot, and its process is gone."""
    if holder["host"] != socket.gethostname() or holder["boot"] != _boot_id():
        return False
    return _process_start(holder["pid"]) != holder["started"]


def _boot_id() -> str:
    """Two containers of one machine share a boot id and a host name at worst; their process tables differ, so the
    process namespace is part of it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _process_start(pid: int) -> str | None:
    """Start time of a living process in clock ticks since boot; None for a dead one (or a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
