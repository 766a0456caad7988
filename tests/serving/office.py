"""Endpoints in this process: real models behind real HTTP, without Ray. What Ray adds is in tests/promises."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hfray.inference.model_use import check_use
from hfray.serving.cards import card_of
from hfray.serving.directory import Directory
from hfray.serving.front import Front
from hfray.serving.keys import KeyRing
from hfray.serving.lane import Lane
from hfray.serving.leases import Leases
from hfray.serving.messages import Ask, Card, Piece, Reply
from hfray.serving.port import listen
from hfray.serving.replica import Replica
from hfray.serving.routes import make_app
from hfray.serving.server import Server
from hfray.spec.endpoint import EndpointSpec, GatewaySpec

STARTS_S = 30


class LocalCalls:
    """A replica in this process, as a lane calls one."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica

    async def predict(self, asks: Sequence[Ask], load: int) -> list[Reply]:
        return await self.replica.predict(asks)

    async def stream(self, ask: Ask, load: int) -> AsyncIterator[list[Piece]]:
        async for pieces in self.replica.stream(ask):
            yield pieces


def replica_of(path: Path | str, task: Any, **changes: Any) -> tuple[Replica, Card]:
    spec = EndpointSpec.model_validate({"model": {"path": str(path), "dtype": "float32"}, "task": task, **changes})
    checked, processor, info = check_use(spec)
    return Replica(checked, spec), card_of(spec, checked, processor, info)


def front_of(models: dict[str, tuple[Replica, Card]], *, leases: Leases | None = None, **gateway: Any) -> Front:
    """A gateway's state that knows these models."""
    directory = Directory(_no_calls, dict)
    for name, (replica, card) in models.items():
        directory.lanes[name] = Lane(replace(card, name=name), LocalCalls(replica))
    directory.known = True
    return Front(directory, GatewaySpec.model_validate(gateway), leases=leases)


def _no_calls(name: str) -> Any:
    raise RuntimeError("the models of this gateway are given")


async def _app(front: Front, ring: KeyRing | None) -> Any:
    """Made in a loop, as a gateway makes it: Gradio would open one of its own."""
    return make_app(front, ring)


@contextmanager
def served(front: Front, ring: KeyRing | None = None) -> Iterator[str]:
    """The gateway on a free port of loopback, in a thread; yields its address."""
    app = asyncio.run(_app(front, ring))
    socket = listen("127.0.0.1", 0)
    server = Server(app, socket, drain_s=STARTS_S)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    deadline = time.monotonic() + STARTS_S
    while not server.started:
        if time.monotonic() > deadline:
            raise TimeoutError("the gateway did not start")
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        front.draining = True
        server.should_exit = True
        thread.join()
