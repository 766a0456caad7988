"""The table of part C of the promises."""

from __future__ import annotations

import json
import math

import pytest

from hfray.serving.bodies import MAX_RETRY_AFTER_S, error_body, error_response, is_openai


@pytest.mark.parametrize(
    ("status", "openai", "hf"),
    [
        (400, "invalid_request_error", "validation"),
        (401, "authentication_error", "validation"),
        (404, "not_found_error", "validation"),
        (408, "timeout_error", "incomplete_generation"),
        (413, "invalid_request_error", "validation"),
        (422, "invalid_request_error", "validation"),
        (429, "rate_limit_error", "overloaded"),
        (500, "server_error", "generation"),
        (503, "overloaded_error", "overloaded"),
    ],
)
def test_types_by_status(status: int, openai: str, hf: str) -> None:
    of_openai = {"error": {"message": "m", "type": openai, "param": "p", "code": None}}
    assert error_body("/v1/chat/completions", status, "m", param="p") == of_openai
    assert error_body("/models/x", status, "m", param="p") == {"error": "m", "error_type": hf}
    assert error_body("/models/x", status, "m", error_type="template_error")["error_type"] == "template_error"


@pytest.mark.parametrize(
    ("path", "openai"),
    [("/v1", True), ("/v1/models", True), ("/models/a/v1/chat", True), ("/v1x", False), ("/models/v1", False)],
)
def test_which_form(path: str, openai: bool) -> None:
    assert is_openai(path) is openai


@pytest.mark.parametrize(
    ("status", "wait_s", "header"),
    [(429, 0.2, "1"), (429, 2.1, "3"), (503, None, "1"), (503, math.inf, str(MAX_RETRY_AFTER_S)), (404, None, None)],
)
def test_retryable_refusals_say_when(status: int, wait_s: float | None, header: str | None) -> None:
    response = error_response("/", status, "half \ud800 of a pair\n", retry_after_s=wait_s)
    assert response.headers.get("retry-after") == header
    assert json.loads(bytes(response.body))["error"] == "half \ud800 of a pair\n"
