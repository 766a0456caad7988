"""What this process opens and whom it asks, by the interpreter's own audit events, and a server that nobody should ask.

An audit hook cannot be taken away again: there is one, and it is deaf outside of `watching`. It hears what goes through
Python, in all threads; what a library does in C or Rust, or another process, it does not hear. The server does.
"""

from __future__ import annotations

import http.server
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Seen:
    opened: set[str] = field(default_factory=set)
    """Paths of files and folders as they were given."""
    asked: set[tuple[str, str]] = field(default_factory=set)
    """(event, address): connections, datagrams and names of hosts that were looked up."""


_ASKING = {"socket.connect": 1, "socket.sendto": 1, "socket.getaddrinfo": 0, "socket.gethostbyname": 0}
"""Event to the place of the address among its arguments."""
_seen: Seen | None = None
_hooked = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    seen = _seen
    if seen is None:
        return
    if event in ("open", "os.listdir", "os.scandir"):
        if isinstance(arguments[0], str | bytes):  # else a descriptor that is open already
            seen.opened.add(os.fsdecode(arguments[0]))
    elif event in _ASKING:
        where = arguments[_ASKING[event]]
        if event == "socket.getaddrinfo":
            where = arguments[:2]
        seen.asked.add((event, ":".join(map(str, where)) if isinstance(where, tuple) else str(where)))


@contextmanager
def watching() -> Iterator[Seen]:
    """What is seen inside."""
    global _hooked, _seen
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked = True
    _seen = Seen()
    try:
        yield _seen
    finally:
        _seen = None


@contextmanager
def canary() -> Iterator[tuple[str, list[str]]]:
    """HOST:PORT of a server, and the paths that it was asked for."""
    hits: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hits.append(self.path)
            self.send_error(404)

        do_HEAD = do_POST = do_PUT = do_OPTIONS = do_GET  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", hits
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
