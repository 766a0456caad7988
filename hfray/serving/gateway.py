"""The process that the clients talk to: its own ASGI server on its own port. Knows its life in Ray Serve;
routes are in `routes.py`, the server in `server.py`, its port in `port.py`.

Ray Serve's HTTP proxies stay off: one process less on a request's way, no plain-text refusals, no open routes beside
ours. Several gateways on one node share the port.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from hfray.serving import access_log
from hfray.serving.calls import HandleCalls
from hfray.serving.directory import Directory
from hfray.serving.errors import RequestError
from hfray.serving.front import Front
from hfray.serving.keys import KeyRing
from hfray.serving.leases import Leases
from hfray.serving.meters import Meters, RayMeters
from hfray.serving.port import listen
from hfray.serving.routes import make_app
from hfray.serving.server import Server
from hfray.spec.endpoint import GatewaySpec

LAST_WORDS_S = 1.0


class Gateway:
    """A replica of the gateway's deployment."""

    async def __init__(self, spec: GatewaySpec, book: Any = None) -> None:  # type: ignore[misc]  # Serve awaits it
        """book: the handle of the deployment that keeps the quotas of all gateways. Raises SpecError."""
        ring = None if spec.keys is None else KeyRing.load(spec.keys)
        access_log.to_standard_output()
        self._spec = spec
        self._id = uuid.uuid4().hex[:12]
        meters = RayMeters() if spec.metrics else Meters()
        self._directory = Directory(lambda name: HandleCalls(name, self._id), waiting=meters.waiting)
        await self._directory.start()
        self._leases = None if book is None else Leases(book.lease.remote)
        self._front = Front(self._directory, spec, leases=self._leases, meters=meters)
        self._server = Server(make_app(self._front, ring), listen(spec.host, spec.port), drain_s=spec.drain_s)
        self._task = asyncio.get_running_loop().create_task(self._server.serve())

    async def check_health(self) -> None:
        """Raises when the server has ended."""
        if self._task.done():
            raise RuntimeError("the gateway's HTTP server has ended")

    async def __del__(self) -> None:
        server = getattr(self, "_server", None)
        if server is None:
            return
        self._front.draining = True
        server.should_exit = True
        # uvicorn cuts off what is left after `drain_s`, which a client could take for the end of its text.
        loop = asyncio.get_running_loop()
        leaving = RequestError("this gateway is being replaced", status=503, type="Overloaded", retry_after_s=1)
        last_words = loop.call_later(max(0.0, int(self._spec.drain_s) - LAST_WORDS_S), self._directory.end, leaving)
        await asyncio.wait([self._task], timeout=self._spec.drain_s)
        last_words.cancel()
        if self._leases is not None:
            await self._leases.close()
        await self._directory.stop()
