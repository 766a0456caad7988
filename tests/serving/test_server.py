"""Servers that come and go on one port, under clients that keep their connections and clients that do not."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx

from hfray.serving.port import listen
from hfray.serving.server import Server
from tests.promises.rig import within

DRAIN_S = 20


async def app(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    if scope["path"] == "/slow":
        await asyncio.sleep(1)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"well"})


class Running:
    """A server in a thread, on a loop of its own."""

    def __init__(self, port: int = 0) -> None:
        listening = listen("127.0.0.1", port)
        self.port = listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.server = Server(app, listening, drain_s=DRAIN_S)
        self.thread = threading.Thread(target=lambda: asyncio.run(self.server.serve()), daemon=True)
        self.thread.start()
        deadline = time.monotonic() + within(20)
        while not self.server.started:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)

    def leave(self) -> None:
        self.server.should_exit = True

    def until_gone(self) -> float:
        started = time.monotonic()
        self.thread.join()
        return time.monotonic() - started


@contextmanager
def clients(url: str) -> Iterator[Counter[str]]:
    """Eight that keep their connections and eight that do not, in a thread; counts statuses and errors."""
    seen: Counter[str] = Counter()
    ends = threading.Event()

    async def kept() -> None:
        async with httpx.AsyncClient() as client:
            while not ends.is_set():
                await ask(client)
                await asyncio.sleep(0.01)

    async def fresh() -> None:
        while not ends.is_set():
            async with httpx.AsyncClient(verify=False) as client:
                await ask(client)

    async def ask(client: httpx.AsyncClient) -> None:
        try:
            seen[str((await client.post(url, content=b"x")).status_code)] += 1
        except httpx.ConnectError:  # nothing was sent, so any client may try again
            seen["not connected"] += 1
        except httpx.HTTPError as error:
            seen[repr(error)] += 1

    async def run() -> None:
        await asyncio.gather(*(kept() for _ in range(8)), *(fresh() for _ in range(8)))

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        yield seen
    finally:
        ends.set()
        thread.join()


def test_a_server_that_leaves_the_port_to_another_loses_no_request() -> None:
    now = Running()
    with clients(now.url) as seen:
        for _ in range(8):
            before, now = now, Running(now.port)
            time.sleep(0.3)
            before.leave()
            before.until_gone()
    now.leave()
    now.until_gone()
    print(dict(seen))
    assert set(seen) <= {"200", "not connected"}, seen
    assert seen["not connected"] <= 2
    assert seen["200"] > 500


def test_an_idle_connection_has_one_more_request_and_is_told_to_close() -> None:
    running = Running()
    with httpx.Client() as client:
        assert "connection" not in client.get(running.url).headers
        running.leave()
        with suppress(ConnectionRefusedError):  # it listens no more
            while True:
                socket.create_connection(("127.0.0.1", running.port)).close()
        while True:
            last = client.get(running.url)
            assert last.text == "well"
            if last.headers.get("connection") == "close":
                break
    assert running.until_gone() < 3


def test_connections_that_ask_nothing_are_closed_soon() -> None:
    running = Running()
    address = ("127.0.0.1", running.port)
    with socket.create_connection(address) as never_used, socket.create_connection(address) as used:
        used.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        got = b""
        while not got.endswith(b"well"):
            got += used.recv(1000)
        running.leave()
        assert 3 < running.until_gone() < within(15)
        for each in (never_used, used):
            with suppress(ConnectionResetError):
                assert each.recv(1000) == b""


def test_what_is_under_way_and_what_waits_to_be_taken_in_is_answered() -> None:
    running, waiting = Running(), []
    with httpx.Client() as client:
        answers: list[httpx.Response] = []
        slow = threading.Thread(target=lambda: answers.append(client.get(f"{running.url}/slow", timeout=20)))
        slow.start()
        time.sleep(0.3)
        with suppress(ConnectionRefusedError, ConnectionResetError):
            while True:
                if len(waiting) == 8:
                    running.leave()
                connection = socket.create_connection(("127.0.0.1", running.port))
                waiting.append(connection)
                connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        slow.join()
    *taken_in, _ = waiting  # the last one may have come in the middle of the closing
    assert len(taken_in) > 3
    for connection in taken_in:
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
    for connection in waiting:
        connection.close()
    assert answers[0].text == "well"
    running.until_gone()
