"""A real server on a loopback port with the guard before a small application, and a client on a raw socket."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from hfray.serving.errors import RequestError
from hfray.serving.guard import IMAGE_BODY_BYTES, TEXT_BODY_BYTES, Guard
from hfray.serving.json_body import read_json
from hfray.serving.keys import KeyRing, new_key
from hfray.serving.keys_file import Key, write_keys
from hfray.serving.wire import Wire

WAIT_S = 10.0
SECRET = "hunter2-the-text-of-a-request"


def until(condition: Any, what: str) -> None:
    """Polls with a deadline."""
    end = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.005)


def make_keys(folder: Path, **entries: dict[str, Any]) -> tuple[Path, dict[str, str]]:
    """A keys file with these ids, and the text of each key."""
    path, texts, keys = folder / "keys.yaml", {}, []
    for name, fields in entries.items():
        texts[name], sha256 = new_key()
        keys.append(Key(id=name, sha256=sha256, **fields))
    write_keys(path, keys)
    return path, texts


def small_app() -> FastAPI:
    app = FastAPI()

    @app.get("/healthz")
    @app.get("/readyz")
    async def healthz() -> dict[str, bool]:
        return {"ok": True}

    @app.post("/v1/echo")
    @app.post("/models/{name}")
    @app.post("/images/{name}")
    async def echo(request: Request) -> JSONResponse:
        request.state.model = "echo"
        value = await read_json(request)
        return JSONResponse({"got": value if request.url.path == "/v1/echo" and len(str(value)) < 1000 else "much"})

    @app.post("/headers")
    async def headers(request: Request) -> list[str]:
        await request.body()
        return [name.decode() for name, _ in request.scope["headers"]]

    @app.post("/swallows")
    async def swallows(request: Request) -> dict[str, bool]:
        with contextlib.suppress(Exception):
            await request.body()
        return {"ok": True}

    @app.get("/typed/{number}")
    async def typed(number: int) -> int:
        return number

    @app.post("/refuses")
    async def refuses() -> None:
        raise RequestError("inputs: too long; send less", status=422, param="inputs")

    @app.post("/breaks")
    async def breaks(request: Request) -> None:
        raise ValueError(f"about {SECRET} {await request.body()!r}")

    @app.get("/cut")
    async def cut() -> StreamingResponse:
        async def parts() -> Any:
            yield b"data: 1\n\n"
            raise ValueError(SECRET)

        return StreamingResponse(parts(), media_type="text/event-stream")

    return app


def cap(scope: Any) -> int:
    return IMAGE_BODY_BYTES if scope["path"].startswith("/images/") else TEXT_BODY_BYTES


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def assert_error(self, status: int) -> None:
        """The form of part C of the promises."""
        assert self.status == status, (self.status, self.body)
        assert self.headers["content-type"] == "application/json"
        assert self.headers["x-request-id"]
        error = self.json["error"]
        assert set(self.json) == ({"error"} if isinstance(error, dict) else {"error", "error_type"})
        if isinstance(error, dict):
            assert set(error) == {"message", "type", "param", "code"}


@dataclass
class Front:
    port: int
    key: str
    lines: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    num_replies: int = 0

    @contextlib.contextmanager
    def connect(self) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S) as connection:
            yield connection

    def ask(
        self, method: str, path: str, body: bytes | None = None, *, key: str | None = "", headers: str = ""
    ) -> Reply:
        """key: "" for the front's own, None for none. headers: lines, each with its CRLF."""
        key = self.key if key == "" else key
        head = f"{method} {path} HTTP/1.1\r\nhost: x\r\n{headers}"
        head += f"authorization: Bearer {key}\r\n" if key else ""
        head += f"content-length: {len(body)}\r\n" if body is not None else ""
        return self.raw(f"{head}\r\n".encode("latin-1") + (body or b""))

    def raw(self, content: bytes) -> Reply:
        with self.connect() as connection:
            with contextlib.suppress(ConnectionError):  # refused before all was read
                connection.sendall(content)
            return self.read(connection, head_only=content.startswith(b"HEAD"))

    def read(self, connection: socket.socket, *, head_only: bool = False) -> Reply:
        reply = read_reply(connection, head_only=head_only)
        self.num_replies += 1
        return reply

    def forget(self) -> None:
        """What was logged, once the last lines are there: they are written after the replies."""
        until(lambda: len(self.lines) >= self.num_replies, "the last lines of the access log")
        self.num_replies = 0
        self.lines.clear()
        self.log.clear()

    def access(self, count: int) -> list[dict[str, Any]]:
        """The lines of the access log, once there are so many."""
        until(lambda: len(self.lines) >= count, f"{count} lines of {len(self.lines)}")
        return [json.loads(line) for line in self.lines]


def read_reply(connection: socket.socket, *, head_only: bool = False) -> Reply:
    """One reply; its body is what Content-Length says, or all until the end."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _receive(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    if head_only:
        return Reply(int(first.split()[1]), headers, body)
    with contextlib.suppress(EOFError):
        while "content-length" not in headers or len(body) < int(headers["content-length"]):
            body += _receive(connection)
    return Reply(int(first.split()[1]), headers, body)


def _receive(connection: socket.socket) -> bytes:
    data = connection.recv(1 << 16)
    if not data:
        raise EOFError
    return data


class _Collect(logging.Handler):
    def __init__(self, into: list[str]) -> None:
        super().__init__()
        self.into = into

    def emit(self, record: logging.LogRecord) -> None:
        self.into.append(self.format(record))


@contextlib.contextmanager
def run_front(ring: KeyRing | None, key: str, inner: Any = None, **guard: Any) -> Iterator[Front]:
    """uvicorn in a thread of this process, until the end of the block. inner: instead of the small application."""
    app = Guard(inner or small_app(), ring, max_body_bytes=cap, **guard)
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, http=Wire, access_log=False, server_header=False, log_config=None)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    front = Front(0, key)
    access, root = logging.getLogger("hfray.access"), logging.getLogger()
    lines, log = _Collect(front.lines), _Collect(front.log)
    access.addHandler(lines)
    root.addHandler(log)
    level = access.level
    access.setLevel(logging.INFO)
    try:
        thread.start()
        until(lambda: server.started, "the server starts")
        front.port = server.servers[0].sockets[0].getsockname()[1]
        yield front
    finally:
        server.should_exit = True
        thread.join(WAIT_S)
        access.removeHandler(lines)
        root.removeHandler(log)
        access.setLevel(level)


def rss_bytes() -> int:
    """Of this process, now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
