"""Bodies from results, checked against OpenAI's own description. With a model: test_batch.py."""

from __future__ import annotations

from typing import Any

import pytest

from hfray.errors import RowError
from hfray.tasks.openai.requests import ChatBody
from hfray.tasks.openai.responses import chat_completion, error_response, identifier
from tests.tasks.openai.support import check_body

BODY = ChatBody(model="m", messages=[{}])


def detail(**changes: Any) -> dict[str, Any]:
    plain = {
        "text": "", "finish": "stop", "reasoning": None, "tool_calls": [], "prompt_tokens": 3, "completion_tokens": 2,
        "logprobs": None,
    }  # fmt: skip
    return plain | changes


def test_calls_of_tools() -> None:
    calls = [{"name": "f", "arguments": '{"x": 1}'}, {"name": "f", "arguments": "{}"}]
    body = chat_completion([[detail(tool_calls=calls, finish="tool_calls", reasoning="hm")]], BODY, "id")
    check_body({"id": "x", "created": 1, **body}, "CreateChatCompletionResponse")
    message = body["choices"][0]["message"]
    assert message["content"] is None
    assert message["reasoning_content"] == "hm"
    assert [call["function"] for call in message["tool_calls"]] == calls
    ids = [call["id"] for call in message["tool_calls"]]
    assert len(set(ids)) == 2
    assert all(each.startswith("call_") for each in ids)
    again = chat_completion([[detail(tool_calls=calls)]], BODY, "id")["choices"][0]["message"]["tool_calls"]
    assert [call["id"] for call in again] == ids, "a part holds no chance"
    assert (
        chat_completion([[detail(text="a", tool_calls=calls)]], BODY, "other")["choices"][0]["message"]["content"]
        == "a"
    )


def test_half_a_character_has_no_bytes() -> None:
    scores = [{"token": token, "logprob": -1.0, "top": []} for token in ("ü", "\N{REPLACEMENT CHARACTER}")]
    body = chat_completion([[detail(logprobs=scores)]], BODY, "id")
    check_body({"id": "x", "created": 1, **body}, "CreateChatCompletionResponse")
    assert [each["bytes"] for each in body["choices"][0]["logprobs"]["content"]] == [[195, 188], None]


@pytest.mark.parametrize(
    ("error", "status", "wanted"),
    [
        (RowError("url: no", type="InvalidUrl"), 400, ("invalid_request_error", "url", "invalid_url")),
        (RowError("model: no", type="ModelNotFound"), 404, ("invalid_request_error", "model", "model_not_found")),
        (RowError("the prompt has 9 tokens", type="PromptTooLong"), 400,
         ("invalid_request_error", None, "context_length_exceeded")),
        (RowError("top_p: no", type="InvalidRequest"), 400, ("invalid_request_error", "top_p", None)),
        (RowError("the model failed", type="ModelFailure"), 500, ("server_error", None, "server_error")),
    ],
)  # fmt: skip
def test_errors(error: RowError, status: int, wanted: tuple[Any, ...]) -> None:
    found, body = error_response(error.as_record())
    check_body(body, "ErrorResponse")
    assert found == status
    assert tuple(body["error"][key] for key in ("type", "param", "code")) == wanted
    assert body["error"]["message"] == error.message


def test_identifiers() -> None:
    assert identifier("x_", "a") == identifier("x_", "a") != identifier("x_", "b")
    assert len(identifier("x_", "a", 24)) == 26
