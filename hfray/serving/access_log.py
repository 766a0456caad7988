"""The access log: one JSON line for each request. Knows what a line holds and what must not get into it: no text of a
body, no query, no key, no character that could begin a line or steer a terminal."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from typing import Any

logger = logging.getLogger("hfray.access")

MAX_FIELD_CHARS = 128
_PLAIN = re.compile(r"[A-Za-z0-9._-]{1,32}")
_COUNTS = ("num_tokens", "num_new_tokens", "num_rows")


def to_standard_output() -> None:
    """Where the lines of a gateway's process go: Ray keeps them in the log of its worker."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def route_of(scope: Mapping[str, Any]) -> str:
    """The template of the route that answered; where none did, the path's first segment if it is a plain word."""
    template = getattr(scope.get("route"), "path", None)
    if isinstance(template, str):
        return template
    first = str(scope["path"]).lstrip("/").partition("/")[0]
    return f"/{first}" if not first or _PLAIN.fullmatch(first) else "/?"


def trace_id(traceparent: str | None) -> str | None:
    """Of the trace that the systems around know a request by; None where its client said none."""
    return traceparent.split("-")[1] if traceparent else None


def write(scope: Mapping[str, Any], *, status: int, ms: float, in_bytes: int, out_bytes: int, cut: bool) -> None:
    """One line. `scope["state"]` may hold request_id, traceparent, key (an entry of the ring), model and counts.

    cut: the connection ended before the answer did. Raises nothing: a log that fails must not fail the request.
    """
    state = scope["state"]
    key = state.get("key")
    line = {
        "method": scope["method"],
        "route": route_of(scope),
        "status": status,
        "ms": round(ms, 1),
        "request_id": state["request_id"],
        "trace_id": trace_id(state.get("traceparent")),
        "key": None if key is None else key.id,
        "model": state.get("model"),
        "in_bytes": in_bytes,
        "out_bytes": out_bytes,
        **{name: state[name] for name in _COUNTS if name in state},
        **({"cut": True} if cut else {}),
    }
    _line(line)


def write_unread(request_id: str, status: int) -> None:
    """The line of what came as a request and could not be read as one."""
    _line({"method": None, "route": None, "status": status, "request_id": request_id})


def _line(line: Mapping[str, Any]) -> None:
    short = {name: value[:MAX_FIELD_CHARS] if isinstance(value, str) else value for name, value in line.items()}
    logger.info("%s", json.dumps(short, default=lambda value: type(value).__name__))
