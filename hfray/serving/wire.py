"""uvicorn's HTTP protocol with what it leaves open: heads without end, heads that never come, and refusals in plain
text. Knows bytes and uvicorn's class; not keys, not routes. The guard sees only requests that got through here.

uvicorn keeps every header that arrives and waits for the next for ever, before any application is asked. Here the
bytes that were neither a request's whole head nor a part of its body are counted: also those of trailers and of chunk
extensions. Use it as `uvicorn.Config(..., http=Wire, access_log=False, server_header=False)`.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hfray.serving import access_log
from hfray.serving.bodies import error_body

MAX_SILENT_BYTES = 64 << 10
"""Above the guard's limit for headers, whose answer is the better one, and above one read of uvicorn's."""
HEAD_TIMEOUT_S = 20.0
LEAVE_S = 5.0
"""For how long a connection without a request is kept when the server leaves: clients keep theirs for as long and more,
and a request that meets a connection being closed is lost."""
LINGER_S = 5.0
LINGER_BYTES = 8 << 20
"""For how long, and how much of, what a refused client still sends is thrown away, so that it comes to read why."""


class Wire(HttpToolsProtocol):
    """Every answer of its own is JSON, carries an id, closes the connection and is a line of the access log."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ws_protocol_class = None  # there are no websockets
        self.url = b""
        self._silent_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._in_body = False
        self._is_cut = False
        self._is_leaving = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._lingering = Lingering(cast(asyncio.Transport, transport), self.loop, self._is_sending)
        super().connection_made(cast(asyncio.Transport, self._lingering))
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._lingering.end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._lingering.is_closing():
            self._lingering.discard(len(data))
            return
        if not self._in_body and self._head_timer is None:
            self._await_head()
        self._silent_bytes += len(data)
        super().data_received(data)
        if self._silent_bytes > MAX_SILENT_BYTES and not self.transport.is_closing():
            self._refuse(431, "the head of the request is too long; send fewer and shorter headers")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_body:  # trailers are not headers: uvicorn would put them among those of the guard's judgement
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._silent_bytes = 0
        self._in_body = True
        self._stop_timer()
        super().on_headers_complete()
        if self._is_leaving:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._silent_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._silent_bytes = 0
        self._in_body = False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "this is not an HTTP/1.1 request")

    def shutdown(self) -> None:
        """The server leaves: the request under way is the last one, or else the next, if it comes in time."""
        self._is_leaving = True
        if self._is_answering():
            self.cycle.keep_alive = False
        else:
            self.loop.call_later(LEAVE_S, self._leave)

    def _leave(self) -> None:
        if not self._is_answering() and not self._silent_bytes:
            self.transport.close()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._is_answering():
            self._await_head()  # somebody pipelines; what is under way goes first
        elif not self._silent_bytes:
            self.transport.close()  # opened and never used: no request, so no answer and no line
        elif not self.transport.is_closing():
            self._refuse(408, "the head of the request did not come in time")

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _is_sending(self) -> bool:
        """Whether the client may be in the middle of a request that nobody reads to its end."""
        return self._in_body or self._is_cut

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, status: int, message: str) -> None:
        """An answer without a request; nothing is written into another answer that has begun."""
        self._stop_timer()
        if not (self._is_answering() and self.cycle.response_started):
            request_id = uuid.uuid4().hex
            body = json.dumps(error_body(self.url.decode("latin-1"), status, message)).encode("ascii")
            head = [
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
                "content-type: application/json",
                f"content-length: {len(body)}",
                f"x-request-id: {request_id}",
                "x-content-type-options: nosniff",
                "connection: close",
            ]
            self.transport.write("\r\n".join([*head, "", ""]).encode("ascii") + body)
            if not self._is_answering():  # else the guard writes the line of the request that is cut here
                access_log.write_unread(request_id, status)
        if self._is_answering():  # the client may stay for a while; the application need not wait for it
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._is_cut = True
        self.transport.close()


class Lingering:
    """A transport whose `close` first says that no more will come, and lets the peer finish. A connection that is
    closed over bytes that were not read is reset, and the reset takes the answer with it (RFC 9112, section 9.6).
    """

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, is_sending: Callable[[], bool]
    ) -> None:
        """is_sending: whether there is something to wait for."""
        self._transport = transport
        self._loop = loop
        self._is_sending = is_sending
        self._timer: asyncio.TimerHandle | None = None
        self._num_bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._timer is not None or self._transport.is_closing()

    def close(self) -> None:
        """The second call does not wait."""
        if self.is_closing() or not self._is_sending() or not self._transport.can_write_eof():
            self.end()
            self._transport.close()
            return
        self._transport.write_eof()
        self._transport.resume_reading()
        self._timer = self._loop.call_later(LINGER_S, self._transport.close)

    def discard(self, num_bytes: int) -> None:
        self._num_bytes += num_bytes
        if self._num_bytes > LINGER_BYTES:
            self._transport.close()

    def end(self) -> None:
        """The peer is gone."""
        if self._timer is not None:
            self._timer.cancel()
