"""uvicorn's server with a leave that no client sees while another gateway has the port too. Knows sockets and uvicorn;
requests are in `wire.py`.

uvicorn closes its listening socket over the connections that wait in it, which the system then resets, and its idle
connections over the requests that are on their way. Here the first are taken in, and the second are kept for one more
request (`Wire.shutdown`).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any, cast

import uvicorn

from hfray.serving.port import BACKLOG
from hfray.serving.wire import Wire

KEEP_ALIVE_S = 75


class Server(uvicorn.Server):
    """Serves an application on a socket that listens: `await server.serve()`, until `server.should_exit`."""

    def __init__(self, app: Any, listening: socket.socket, *, drain_s: float) -> None:
        """drain_s: for how long answers under way may go on when the server leaves; whole seconds count."""
        super().__init__(
            uvicorn.Config(
                app,
                http=Wire,
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                log_level="warning",
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=int(drain_s),
                backlog=BACKLOG,
            )
        )
        self._listening = listening

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """sockets: not needed."""
        await super().serve([self._listening])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes in whoever waits, then leaves as uvicorn does."""
        waiting = []
        with contextlib.suppress(BlockingIOError):
            while True:
                waiting.append(self._listening.accept()[0])
        self._listening.shutdown(socket.SHUT_RDWR)  # at once: who comes between is reset
        for server in self.servers:
            server.close()
        self._listening.close()
        loop = asyncio.get_running_loop()
        for each in waiting:
            each.setblocking(False)
            with contextlib.suppress(OSError):  # gone again
                await loop.connect_accepted_socket(self._protocol, each)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        return cast(
            asyncio.Protocol,
            Wire(config=self.config, server_state=self.server_state, app_state=self.lifespan.state),
        )
