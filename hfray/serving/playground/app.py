"""The playground as an application to mount. Knows Gradio's application and its settings; the page is `page.py`'s, who
comes in is `door.py`'s."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hfray.errors import SpecError
from hfray.serving.front import Front
from hfray.serving.keys import KeyRing
from hfray.serving.playground.door import PREFIX, Door
from hfray.serving.playground.inside import Inside

MAX_WAITING = 64
_ELSEWHERE = re.compile(rb"""<meta\s+(?:property|name)="(?:og|twitter):[^>]*>|<link rel="manifest"[^>]*>""")
_ICON = b'<link rel="icon" href="data:,">'
IDLE_POLL_S = 0.02
"""How often Gradio's queue is looked into while it is empty; left alone it is every millisecond."""


def make_playground(
    front: Front, routes: ASGIApp, max_body_bytes: Callable[[Scope], int], ring: KeyRing | None
) -> ASGIApp:
    """routes: the gateway's application, without its guard. Raises SpecError where Gradio is not installed."""
    if not _is_installed("gradio"):
        raise SpecError("playground: needs Gradio; install it with `pip install 'hfray[ui]'`, or leave playground out")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read at import; nothing is reported to anybody
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    from hfray.serving.playground.page import Page

    page = Page(front, Inside(routes, max_body_bytes))
    return Door(_Started(page), ring, lambda: front.draining)


class _Started:
    """Gradio's application below PREFIX. Its queue starts with the first request, so that it costs nothing before."""

    def __init__(self, page: Any) -> None:
        from fastapi import FastAPI
        from gradio.routes import mount_gradio_app

        page.blocks.queue(max_size=MAX_WAITING, default_concurrency_limit=None, api_open=False)
        queue = page.blocks._queue
        queue.sleep_when_free = IDLE_POLL_S
        queue.ANAYLTICS_CACHE_FREQUENCY = sys.maxsize  # sic; else it sums up all past events after each one
        queue.ANALYTICS_MAX_EVENTS = MAX_WAITING
        self._blocks = page.blocks
        self._app = mount_gradio_app(
            FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
            page.blocks,
            PREFIX,
            footer_links=[],
            run_history=False,
            auth_dependency=_key_id,
            allowed_paths=[],
            show_error=False,
            max_file_size=0,
            ssr_mode=False,
            enable_monitoring=False,
            pwa=False,
            mcp_server=False,
            theme=page.theme,
            css=page.css,
        )
        self._running = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._running:
            self._running = True
            self._blocks.run_startup_events()
        if scope["path"] == f"{PREFIX}/" and scope["method"] == "GET":
            await _trimmed(self._app, scope, receive, send)
        else:
            await self._app(scope, receive, send)


async def _trimmed(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """The page without what Gradio's template says of pages elsewhere: previews, icons, a manifest."""
    messages: list[Message] = []

    async def keep(message: Message) -> None:
        messages.append(message)

    plain = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
    await app({**scope, "headers": plain}, receive, keep)
    body = b"".join(message.get("body", b"") for message in messages)
    start = messages[0]
    if start["status"] == 200:
        body = _ELSEWHERE.sub(b"", body).replace(b"</head>", _ICON + b"</head>", 1)
    headers = [(name, value) for name, value in start["headers"] if name != b"content-length"]
    headers += [(b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
    await send({**start, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _key_id(request: Any) -> str:
    """Gradio's name for whoever asks. The door has checked it; without keys it is nobody's."""
    key = request.scope["state"]["key"]
    return "" if key is None else str(key.id)


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # it is kept from being imported
        return False
