"""Refusals as an OpenAPI document describes them: by status, for both forms of error bodies. Knows part C of the
promises; not routes, not models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

Form = Literal["OpenAI", "HF"]

_REQUEST_ID = {"x-request-id": {"$ref": "#/components/headers/RequestId"}}
_RETRY_AFTER = {"retry-after": {"$ref": "#/components/headers/RetryAfter"}}
_CHALLENGE = {"www-authenticate": {"$ref": "#/components/headers/Challenge"}}
_WHEN = {
    400: "The body is not JSON, or the request is not HTTP as it should be.",
    401: "There is no valid API key.",
    404: "There is no such model or route, or the key may not ask the model.",
    408: "The body did not come, or the answer was not there, in time.",
    413: "The body is too large.",
    415: "The model takes no images.",
    422: "The body breaks the schema, or a bound of the model.",
    429: "The key has used up its quota; Retry-After says when to come back.",
    431: "The headers are too long or too many.",
    500: "The server or the model failed.",
    503: "The model has too many requests, or does not answer yet; Retry-After says when to come back.",
}
EVERYWHERE = (400, 401, 408, 413, 431, 500)
"""Statuses that any route may answer with."""


def answer_headers() -> dict[str, Any]:
    """Of every answer."""
    return dict(_REQUEST_ID)


def refusals(form: Form, statuses: Iterable[int], *, secured: bool) -> dict[str, Any]:
    """An operation's responses beside those of success, by reference."""
    chosen = sorted({*EVERYWHERE, *statuses} - (set() if secured else {401}))
    return {str(status): {"$ref": f"#/components/responses/{form}{status}"} for status in chosen}


def refusal_components() -> dict[str, dict[str, Any]]:
    """What `refusals` refers to."""
    return {
        "headers": {
            "RequestId": {
                "description": "Tells the request in the server's log; the request's own x-request-id, if it has one.",
                "schema": {"type": "string", "pattern": "^[A-Za-z0-9-]{1,64}$"},
                "required": True,
            },
            "RetryAfter": {
                "description": "Seconds.",
                "schema": {"type": "string", "pattern": "^[0-9]{1,5}$"},
                "required": True,
            },
            "Challenge": {"schema": {"type": "string", "const": "Bearer"}, "required": True},
        },
        "schemas": {"OpenAIError": _OPENAI, "HFError": _HF},
        "responses": {f"{form}{status}": _response(form, status) for form in ("OpenAI", "HF") for status in _WHEN},
    }


def _response(form: str, status: int) -> dict[str, Any]:
    extra = _RETRY_AFTER if status in (429, 503) else _CHALLENGE if status == 401 else {}
    return {
        "description": _WHEN[status],
        "headers": {**_REQUEST_ID, **extra},
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{form}Error"}}},
    }


_OPENAI = {
    "type": "object",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "additionalProperties": False,
            "properties": {
                "message": {"type": "string", "minLength": 1},
                "type": {
                    "enum": [
                        "invalid_request_error",
                        "authentication_error",
                        "not_found_error",
                        "timeout_error",
                        "rate_limit_error",
                        "overloaded_error",
                        "server_error",
                    ]
                },
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_HF = {
    "type": "object",
    "required": ["error", "error_type"],
    "additionalProperties": False,
    "properties": {
        "error": {"type": "string", "minLength": 1},
        "error_type": {"enum": ["validation", "template_error", "incomplete_generation", "overloaded", "generation"]},
    },
}
