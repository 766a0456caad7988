"""The gateway's own routes, asked from within its process. Knows ASGI and the forms of answers, errors and streams; not
pages, not models.

What the playground does is a request like any other: it passes the same guard, admission, quotas, limits and logs, and
fails with the same words.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hfray.serving.errors import RequestError
from hfray.serving.guard import Guard
from hfray.serving.keys_file import Key

_KEY = "hfray.key"


class Inside:
    """Requests in the name of a key."""

    def __init__(self, routes: ASGIApp, max_body_bytes: Callable[[Scope], int]) -> None:
        """routes: the gateway's application, without its guard."""
        self._app = Guard(_named(routes), None, max_body_bytes=max_body_bytes)

    async def ask(self, key: Key | None, path: str, body: Any) -> Any:
        """The answer's value. Raises RequestError with the message of a refusal."""
        async with aclosing(cast(Any, self._call(key, path, body))) as messages:
            return await _whole(messages)

    async def stream(self, key: Key | None, path: str, body: Any) -> AsyncIterator[dict[str, Any]]:
        """The events of an answer as they come; closing the iterator ends the request. Raises RequestError."""
        rest = b""
        async with aclosing(cast(Any, self._call(key, path, body))) as messages:
            async for message in messages:
                if message["type"] == "http.response.start" and message["status"] >= 400:
                    await _whole(messages, message["status"])
                *events, rest = (rest + message.get("body", b"")).split(b"\n\n")
                for each in events:
                    data = each.removeprefix(b"data: ")
                    if data == b"[DONE]":
                        return
                    value = json.loads(data)
                    if "error" in value:
                        raise _error(value, 500)
                    yield value

    async def _call(self, key: Key | None, path: str, body: Any) -> AsyncIterator[Message]:
        data = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(data)).encode()),
            ],
            "client": None,
            "server": None,
            "state": {},
            _KEY: key,
        }
        sent = [{"type": "http.request", "body": data, "more_body": False}]
        answer: asyncio.Queue[Message | None] = asyncio.Queue()

        async def receive() -> Message:
            if not sent:
                await asyncio.Future()  # who asks is there until the call is cancelled
            return sent.pop()

        async def send(message: Message) -> None:
            answer.put_nowait(message)

        task = asyncio.ensure_future(self._app(scope, receive, send))
        task.add_done_callback(lambda _: answer.put_nowait(None))
        try:
            while (message := await answer.get()) is not None:
                yield message
            await task
        finally:
            task.cancel()


def _named(routes: ASGIApp) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["key"] = scope[_KEY]
        await routes(scope, receive, send)

    return app


async def _whole(messages: AsyncIterator[Message], status: int = 500) -> Any:
    body = b""
    async for message in messages:
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            body += message.get("body", b"")
    value = json.loads(body)
    if status >= 400:
        raise _error(value, status)
    return value


def _error(value: Any, status: int) -> RequestError:
    error = value["error"]
    return RequestError(error["message"] if isinstance(error, dict) else error, status=status)
