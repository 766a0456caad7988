"""Error bodies: OpenAI's form below /v1, the Hugging Face form elsewhere. Knows the table of statuses (promises, part
C); not why a request is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

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


def error_body(
    path: str,
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    error_type: str | None = None,
) -> dict[str, Any]:
    """The JSON value of a refusal; also what an event in a stream carries. error_type: instead of the table's."""
    openai, hf = _TYPES.get(status, _INVALID if status < 500 else ("server_error", "generation"))
    if is_openai(path):
        return {"error": {"message": message, "type": error_type or openai, "param": param, "code": code}}
    return {"error": message, "error_type": error_type or hf}


def error_response(
    path: str,
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    error_type: str | None = None,
    retry_after_s: float | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A refusal as a response. Those that are worth another try say when: `Retry-After`, in whole seconds."""
    all_headers = dict(headers or {})
    if retry_after_s is not None or status in RETRYABLE:
        wait_s = min(max(retry_after_s or 0.0, 1.0), MAX_RETRY_AFTER_S)
        all_headers["retry-after"] = str(math.ceil(wait_s))
    body = error_body(path, status, message, param=param, code=code, error_type=error_type)
    return Response(json.dumps(body).encode("ascii"), status, all_headers, "application/json")
