"""Error bodies: OpenAI's form below /v1, the Hugging Face form elsewhere. Knows the table of statuses (promises, part
C); not why a request is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, TypedDict, Unpack

from starlette.responses import Response

_INVALID = ("invalid_request_error", "validation")
_TYPES: Mapping[int, tuple[str, str]] = {
    401: ("authentication_error", "validation"),
    404: ("not_found_error", "validation"),
    408: ("timeout_error", "incomplete_generation"),
    429: ("rate_limit_error", "overloaded"),
    503: ("overloaded_error", "overloaded"),
}
RETRYABLE = (429, 503)
MAX_RETRY_AFTER_S = 86_400


def is_openai(path: str) -> bool:
    """Whether a path belongs to the OpenAI routes: /v1/..., or .../v1/... of one model."""
    return path == "/v1" or path.startswith("/v1/") or "/v1/" in path


class Details(TypedDict, total=False):
    """What a body may say beside its message."""

    param: str | None
    code: str | None
    error_type: str | None
    """Instead of the table's."""


def error_body(path: str, status: int, message: str, **details: Unpack[Details]) -> dict[str, Any]:
    """The JSON value of a refusal; also what an event in a stream carries."""
    openai, hf = _TYPES.get(status, _INVALID if status < 500 else ("server_error", "generation"))
    own_type = details.get("error_type")
    if not is_openai(path):
        return {"error": message, "error_type": own_type or hf}
    what = {"message": message, "type": own_type or openai, "param": details.get("param"), "code": details.get("code")}
    return {"error": what}


def error_response(
    path: str,
    status: int,
    message: str,
    *,
    retry_after_s: float | None = None,
    headers: Mapping[str, str] | None = None,
    **details: Unpack[Details],
) -> Response:
    """A refusal as a response. Those that are worth another try say when: `Retry-After`, in whole seconds."""
    all_headers = dict(headers or {})
    if retry_after_s is not None or status in RETRYABLE:
        wait_s = min(max(retry_after_s or 0.0, 1.0), MAX_RETRY_AFTER_S)
        all_headers["retry-after"] = str(math.ceil(wait_s))
    body = error_body(path, status, message, **details)
    return Response(json.dumps(body).encode("ascii"), status, all_headers, "application/json")
