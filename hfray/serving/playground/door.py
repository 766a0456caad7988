"""The way into the playground: which of its addresses exist, who is let in, what a browser may do with the page. Knows
ASGI, keys and cookies; not pages' contents, not models.

Gradio brings routes for uploads, files, proxies, other pages and an API. None of them is needed here, so none is
reached: what is not listed is not there. Nothing but the login form answers without a session.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import MutableHeaders
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hfray.serving.bodies import error_response
from hfray.serving.keys import KeyRing
from hfray.serving.keys_file import Key
from hfray.serving.playground.login import login_page

PREFIX = "/playground"
COOKIE = "hfray_playground"
SESSION_S = 12 * 3600
MAX_SESSIONS = 1000
POLL_S = 0.5
QUEUE = "gradio_api/queue/join"
_HEARTBEAT = "gradio_api/heartbeat/"
_FILE = r"(?:[A-Za-z0-9_@-][A-Za-z0-9._@-]*/){0,4}[A-Za-z0-9_@-][A-Za-z0-9._@-]*"
_ROUTES: dict[str, re.Pattern[str]] = {
    "GET": re.compile(
        rf"|config|theme\.css|assets/{_FILE}|static/{_FILE}|gradio_api/startup-events|gradio_api/queue/data"
        rf"|{_HEARTBEAT}[A-Za-z0-9]{{1,64}}"
    ),
    "POST": re.compile(rf"{QUEUE}|gradio_api/cancel|gradio_api/reset"),
}
_HEADERS = {
    # What the browser enforces: whatever a model writes or Gradio's code tries, nothing is asked of other hosts.
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; base-uri 'self'; form-action 'self'; "
        "frame-ancestors 'self'"
    ),
    "referrer-policy": "no-referrer",
}


class Door:
    """ASGI. Sets `key` in the state of the scope, as the guard does elsewhere."""

    def __init__(self, page: ASGIApp, ring: KeyRing | None, is_draining: Callable[[], bool]) -> None:
        """page: Gradio's application, mounted at PREFIX. ring: None lets everybody in."""
        self._page = page
        self._ring = ring
        self._sessions = None if ring is None else Sessions(ring)
        self._is_draining = is_draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = str(scope["path"]).removeprefix(PREFIX)
        response = self._own(scope, path)
        if response is None and path == "/login" and scope["method"] == "POST":
            response = await self._log_in(scope, receive)
        send = _with_headers(send)
        if response is not None:
            await response(scope, receive, send)
        elif path.removeprefix("/").startswith(_HEARTBEAT):
            await self._until_draining(self._page(scope, receive, send))
        else:
            if path in ("/", "/config"):  # links to stored states and other pages: there are none
                scope = {**scope, "query_string": b""}
            await self._page(scope, receive, send)

    def _own(self, scope: Scope, path: str) -> Response | None:
        """The answer where it is not Gradio's."""
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        if path == "" and method == "GET":
            return RedirectResponse(f"{PREFIX}/")
        if method == "POST" and not _is_of_this_page(scope):
            return error_response(scope["path"], 403, "the request was made by a page of another host")
        if self._sessions is not None:
            if path == "/login" and method == "POST":
                return None
            if path == "/logout" and method == "GET":
                self._sessions.end(_token(scope))
                return _with_cookie(RedirectResponse(f"{PREFIX}/", 303), scope, "", 0)
            key = self._sessions.key(_token(scope))
            if key is None:
                if path == "/" and method == "GET":
                    refused = scope["query_string"] == b"refused"
                    return HTMLResponse(login_page(refused=refused), headers={"cache-control": "no-store"})
                return error_response(scope["path"], 401, f"log in at {PREFIX}/ first")
            scope["state"]["key"] = key
        routes = _ROUTES.get(method)
        if routes is None or not routes.fullmatch(path.removeprefix("/")):
            return error_response(scope["path"], 404, "there is no such route")
        return None

    async def _log_in(self, scope: Scope, receive: Receive) -> Response:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return Response(status_code=400)
            body += message.get("body", b"")
            more = message.get("more_body", False)
        given = parse_qs(body.decode("latin-1")).get("key", [""])[0].strip()
        token = self._sessions.begin(given) if self._sessions is not None else None
        if token is None:
            return RedirectResponse(f"{PREFIX}/?refused", 303)
        return _with_cookie(RedirectResponse(f"{PREFIX}/", 303), scope, token, SESSION_S)

    async def _until_draining(self, call: Any) -> None:
        """An open page keeps a connection for as long as it is open; a gateway that goes must not wait for it."""
        task = asyncio.ensure_future(call)
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=POLL_S)
                if self._is_draining():
                    task.cancel()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _Session:
    key: Key
    ends_at: float


class Sessions:
    """Who has logged in. A session has its key's rights as they are now, and ends with the key."""

    def __init__(self, ring: KeyRing, clock: Callable[[], float] = time.monotonic) -> None:
        self._ring = ring
        self._clock = clock
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    def begin(self, key_text: str) -> str | None:
        """The session's secret, for a key that is in force."""
        key = self._ring.find(f"Bearer {key_text}")
        if key is None:
            return None
        token = secrets.token_urlsafe(32)
        self._sessions[token] = _Session(key, self._clock() + SESSION_S)
        while len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return token

    def key(self, token: str) -> Key | None:
        """The entry of the session's key; None for no session, one that is over, and a key that is not in force."""
        session = self._sessions.get(token)
        if session is None:
            return None
        key = self._ring.entry(session.key.id)
        same = key is not None and hmac.compare_digest(key.sha256, session.key.sha256)
        if not same or self._clock() > session.ends_at:
            self.end(token)
            return None
        return key

    def end(self, token: str) -> None:
        self._sessions.pop(token, None)


def _token(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"cookie":
            try:
                found = SimpleCookie(value.decode("latin-1")).get(COOKIE)
            except CookieError:
                continue
            if found is not None:
                return found.value
    return ""


def _with_cookie(response: Response, scope: Scope, token: str, seconds: int) -> Response:
    response.set_cookie(
        COOKIE, token, max_age=seconds, path=PREFIX, httponly=True, samesite="strict", secure=scope["scheme"] == "https"
    )
    return response


def _is_of_this_page(scope: Scope) -> bool:
    """Browsers say which page makes a request that changes something; other clients have no cookies to misuse."""
    headers = dict(scope["headers"])
    origin = headers.get(b"origin")
    return origin is None or origin.partition(b"://")[2] == headers.get(b"host")


def _with_headers(send: Send) -> Send:
    async def sends(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
        await send(message)

    return sends
