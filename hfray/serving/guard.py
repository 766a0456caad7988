"""The front of every endpoint, outside of routing: who may ask, how much may be sent, how a failure looks, and the
access log. Knows ASGI, keys and limits of size; not models, not routes, not what a body means.

Nothing is open but what is listed: a route that somebody adds later is behind the key without anybody's doing.
"""

from __future__ import annotations

import logging
import re
import time
import traceback
import uuid
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from hfray.serving import access_log
from hfray.serving.bodies import error_response
from hfray.serving.errors import RequestError
from hfray.serving.exchange import Exchange, default_error
from hfray.serving.held import HeldBytes
from hfray.serving.keys import KeyRing

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/-/healthz"})
TEXT_BODY_BYTES = 1 << 20
IMAGE_BODY_BYTES = 10 << 20
MAX_HEADERS = 64
MAX_HEADER_BYTES = 32 << 10
BODY_TIMEOUT_S = 60.0
_SHOWN_FRAMES = 5
_REQUEST_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_log = logging.getLogger(__name__)


class Guard:
    """ASGI middleware. `scope["state"]` gets `request_id`, `traceparent` (or None) and `key` (the entry, or None).

    Handlers may add `model`, `num_rows`, `num_tokens`, `num_new_tokens` to the state, for the access log.
    ring: None leaves everything open. max_body_bytes: the limit of one request, by its scope. held: the limit of all
    together. doors: a path to the application that has it and all below it, which no key is asked for: it has a login
    of its own. Nothing else is reached through a door.
    """

    def __init__(
        self,
        app: ASGIApp,
        ring: KeyRing | None = None,
        *,
        open_paths: Collection[str] = OPEN_PATHS,
        max_body_bytes: Callable[[Scope], int] = lambda scope: TEXT_BODY_BYTES,
        held: HeldBytes | None = None,
        body_timeout_s: float = BODY_TIMEOUT_S,
        doors: Mapping[str, ASGIApp] = MappingProxyType({}),
    ) -> None:
        self._app = app
        self._ring = ring
        self._open_paths = frozenset(open_paths)
        self._max_body_bytes = max_body_bytes
        self._held = held or HeldBytes()
        self._body_timeout_s = body_timeout_s
        self._doors = dict(doors)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":  # there are none, so that none can be forgotten
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun_s = time.perf_counter()
        scope = {**scope, "state": {**scope.get("state", {}), **_marks(scope)}}
        state = scope["state"]
        answer = Exchange(
            scope,
            receive,
            send,
            held=self._held,
            headers=[
                (b"x-request-id", state["request_id"].encode("ascii")),
                (b"x-content-type-options", b"nosniff"),
            ],
        )
        try:
            refusal = self._refusal(scope, answer)
            if refusal is None:
                await self._run(scope, answer)
            else:
                await answer.refuse(refusal)
        finally:
            answer.forget()
            access_log.write(
                scope,
                status=answer.status,
                ms=1000 * (time.perf_counter() - begun_s),
                in_bytes=answer.in_bytes,
                out_bytes=answer.out_bytes,
                cut=answer.started and not answer.complete,
            )

    def _refusal(self, scope: Scope, answer: Exchange) -> Response | None:
        """Why a request is not handed on, judged by its head alone."""
        path, headers = scope["path"], scope["headers"]
        head_bytes = len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"")
        head_bytes += sum(len(name) + len(value) + len(": \r\n") for name, value in headers)
        if len(headers) > MAX_HEADERS or head_bytes > MAX_HEADER_BYTES:
            what = f"more than {MAX_HEADERS} headers or {MAX_HEADER_BYTES:,} bytes of them; send fewer"
            return error_response(path, 431, what)
        is_open = path in self._open_paths and scope["method"] in ("GET", "HEAD")
        if self._ring is not None and not is_open and self._door(path) is None:
            given = [value for name, value in headers if name == b"authorization"]
            key = self._ring.find(given[0]) if len(given) == 1 else None
            if key is None:
                problem = "no valid API key; send the header `Authorization: Bearer KEY`"
                challenge = {"www-authenticate": "Bearer"}
                return error_response(path, 401, problem, code="invalid_api_key", headers=challenge)
            scope["state"]["key"] = key
        answer.limit(self._max_body_bytes(scope), self._body_timeout_s)
        for length in (value for name, value in headers if name == b"content-length"):
            if not length.isdigit():
                return error_response(path, 400, "the header Content-Length is not a number")
            if len(length) > len(str(1 << 63)) or int(length) > answer.max_body_bytes:
                return answer.too_large()
        return None

    def _door(self, path: str) -> ASGIApp | None:
        return next(
            (door for prefix, door in self._doors.items() if path == prefix or path.startswith(f"{prefix}/")), None
        )

    async def _run(self, scope: Scope, answer: Exchange) -> None:
        path, request_id = scope["path"], scope["state"]["request_id"]
        try:
            await (self._door(path) or self._app)(scope, answer.receive, answer.send)
            await answer.finish()
        except RequestError as error:
            wait_s = error.retry_after_s
            await answer.refuse(
                error_response(path, error.status, error.message, param=error.param, retry_after_s=wait_s)
            )
        except ClientDisconnect:
            return  # either nobody is there, or the exchange has refused the body already
        except Exception as error:
            # Not raised any further: the server would log the text of the exception, which may hold the request's.
            _log.error("request %s: %s at %s", request_id, type(error).__name__, _place(error))
            await answer.refuse(default_error(path, 500))


def _marks(scope: Scope) -> dict[str, Any]:
    """What tells this request from others, here and in the systems around: https://www.w3.org/TR/trace-context/."""
    given: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        if name in (b"x-request-id", b"traceparent"):
            given[name] = "" if name in given else value.decode("latin-1")  # given twice: none of them
    request_id = given.get(b"x-request-id", "")
    traceparent = given.get(b"traceparent", "")
    return {
        "request_id": request_id if _REQUEST_ID.fullmatch(request_id) else uuid.uuid4().hex,
        "traceparent": traceparent if _is_traceparent(traceparent) else None,
        "key": None,
    }


def _is_traceparent(text: str) -> bool:
    """Also of a later version, whose known part is alike and may be followed by more."""
    found = _TRACEPARENT.match(text)
    if found is None or found[1] == "ff" or not int(found[2], 16) or not int(found[3], 16):
        return False
    rest = text[found.end() :]
    return len(text) <= 256 and (not rest or (found[1] != "00" and rest.startswith("-") and rest.isprintable()))


def _place(error: BaseException) -> str:
    """Where it was raised, innermost first: file, line and function, and nothing of what was in hand there."""
    frames = traceback.extract_tb(error.__traceback__)[-_SHOWN_FRAMES:]
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))
