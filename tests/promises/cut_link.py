"""A link between a client and a server of HTTP that is cut at the worst moment: the server has done what was asked of
it, and its answer does not arrive."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

from tests.promises.endpoints import free_port

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_ID = re.compile(rb'"submission_id": ?"([^"]+)"')


class CutLink:
    """Cuts each submission's first answer."""

    def __init__(self, server: str) -> None:
        parts = urlsplit(server)
        self._server = (parts.hostname or "", parts.port or 80)
        self._listener = socket.create_server(("127.0.0.1", free_port()))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.cut: set[bytes] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection(self._server) as server:
            request = _whole(client)
            server.sendall(request.replace(b"Connection: keep-alive", b"Connection: close"))
            found = _ID.search(request)
            is_first = request.startswith(b"POST /api/jobs/ ") and found is not None and found[1] not in self.cut
            for piece in iter(lambda: server.recv(1 << 16), b""):
                if is_first and found is not None:
                    self.cut.add(found[1])
                    return
                client.sendall(piece)


def _whole(client: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += client.recv(1 << 16)
    head, _, body = data.partition(b"\r\n\r\n")
    found = _LENGTH.search(head)
    while found is not None and len(body) < int(found[1]):
        body += client.recv(1 << 16)
    return head + b"\r\n\r\n" + body


@contextlib.contextmanager
def cut_link(server: str) -> Iterator[CutLink]:
    link = CutLink(server)
    try:
        yield link
    finally:
        link.close()
