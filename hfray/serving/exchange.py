"""One request and its answer, between a server and an application. Knows ASGI messages, byte counts and how an error
must look; not who may ask, not which limit holds for whom.

Success passes through as it comes. An answer of 400 and above is held until the application is done: frameworks send
plain text or forms of their own for it, and quote the input; only a JSON object with `error` leaves as it is.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from hfray.serving.bodies import error_response
from hfray.serving.held import HeldBytes

CLIENT_LEFT = 499
"""As nginx logs it: nobody was there to take an answer."""
MAX_ERROR_BYTES = 1 << 16
_KEPT_HEADERS = ("allow", "retry-after", "www-authenticate")
_MESSAGES = {
    404: "there is no such route",
    405: "this route does not take this method; the header Allow names those it takes",
    422: "the request breaks the schema of this route",
    500: "the server failed on this request; its log names the cause under the request id",
    503: "the server cannot take the request now; try again",
}

_PHRASES = {int(status): status.phrase.lower() for status in HTTPStatus}


def default_error(path: str, status: int, headers: dict[str, str] | None = None) -> Response:
    """For a status that nobody explained."""
    return error_response(path, status, _MESSAGES.get(status) or _PHRASES.get(status, "refused"), headers=headers)


class Exchange:
    """`receive` and `send` for the application, which count, refuse and hold. Close it with `finish` where the
    application has ended well, and with `forget` in any case."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        held: HeldBytes,
        headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        self.status = CLIENT_LEFT
        self.in_bytes = 0
        self.out_bytes = 0
        self.started = False
        self.complete = False
        self.max_body_bytes = 0
        self._held_bytes = held
        self._num_held = 0
        self._scope = scope
        self._receive = receive
        self._send = send
        self._headers = tuple(headers)
        self._names = {name for name, _ in self._headers}
        self._ended = False
        self._body_read = not any(
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
            for name, value in scope["headers"]
        )
        self._body_seen = False
        self._deadline_s: float | None = None
        self._held: Message | None = None
        self._held_body = bytearray()

    def limit(self, max_body_bytes: int, body_timeout_s: float) -> None:
        """What `receive` lets through from now on."""
        self.max_body_bytes = max_body_bytes
        self._deadline_s = asyncio.get_running_loop().time() + body_timeout_s

    async def receive(self) -> Message:
        if self._ended:
            return {"type": "http.disconnect"}
        if self._body_seen:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline_s):
                message = await self._receive()
        except TimeoutError:
            await self.refuse(self._error(408, "the body did not come in time; send it at once"))
            return {"type": "http.disconnect"}
        if message["type"] == "http.request":
            num_bytes = len(message.get("body", b""))
            self.in_bytes += num_bytes
            if self.in_bytes > self.max_body_bytes:
                await self.refuse(self.too_large())
                return {"type": "http.disconnect"}
            if not self._held_bytes.take(num_bytes, self._num_held):
                await self.refuse(self._error(503, "other requests' bodies fill the memory for them; try again later"))
                return {"type": "http.disconnect"}
            self._num_held += num_bytes
            if not message.get("more_body", False):
                self._body_seen = self._body_read = True
        return message

    def too_large(self) -> Response:
        return self._error(413, f"the body is larger than {self.max_body_bytes:,} bytes; send fewer or smaller inputs")

    def _error(self, status: int, message: str) -> Response:
        return error_response(self._scope["path"], status, message)

    async def send(self, message: Message) -> None:
        if self._ended:
            return
        if message["type"] == "http.response.start":
            if message["status"] >= 400:
                self._held = message
            else:
                await self._start(message["status"], message.get("headers", ()))
        elif self._held is None:
            await self._pass(message)
        elif message["type"] == "http.response.body" and len(self._held_body) <= MAX_ERROR_BYTES:
            self._held_body += message.get("body", b"")

    async def _start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.started, self.status = True, status
        out = [(name, value) for name, value in headers if name.lower() not in self._names]
        out += self._headers
        if not self._body_read:
            out.append((b"connection", b"close"))  # what is left of the body is not read
        await self._send({"type": "http.response.start", "status": status, "headers": out})

    async def _pass(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            self.out_bytes += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)
        await self._send(message)

    async def refuse(self, response: Response) -> None:
        """This is the answer, whatever the application does; too late once it has begun: then it ends where it is."""
        if self._ended:
            return
        self._ended = True
        if not self.started:
            await self._start(response.status_code, response.raw_headers)
            await self._pass({"type": "http.response.body", "body": bytes(response.body)})

    def forget(self) -> None:
        """The request is over, and nothing of its body is needed any more."""
        self._held_bytes.give(self._num_held)
        self._num_held = 0

    async def finish(self) -> None:
        """The application is done: what was held goes out, in a form of ours."""
        if self._ended or self._held is None:
            return
        status = self._held["status"]
        headers = [(bytes(name).lower(), bytes(value)) for name, value in self._held.get("headers", ())]
        body = bytes(self._held_body)
        texts = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        if texts.get("content-type", "").startswith("application/json") and _has_error(body):
            self._ended = True
            await self._start(status, headers)
            await self._pass({"type": "http.response.body", "body": body})
        else:
            kept = {name: texts[name] for name in _KEPT_HEADERS if name in texts}
            await self.refuse(default_error(self._scope["path"], status, kept))


def _has_error(body: bytes) -> bool:
    if len(body) > MAX_ERROR_BYTES:
        return False
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and "error" in value
