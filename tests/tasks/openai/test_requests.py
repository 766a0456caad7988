from __future__ import annotations

from typing import Any

import pytest

from hfray.errors import RowError
from hfray.tasks.openai.requests import Body, ChatBody, CompletionBody, EmbeddingBody, GeneratingBody, parse_body
from tests.tasks.openai.support import schema_of

ASK = [{"role": "user", "content": "Hi"}]


def chat(**fields: Any) -> Body:
    return parse_body({"model": "m", "messages": ASK, **fields}, ChatBody)


def test_a_chat() -> None:
    body = chat(
        max_completion_tokens=5, temperature=0.5, top_p=0.9, n=2, stop="x", seed=-1, logprobs=True, top_logprobs=3,
        user="u", metadata={"a": "b"}, stream=False, frequency_penalty=0, logit_bias={},
        response_format={"type": "text"},
        tools=[{"type": "function"}], tool_choice="auto", parallel_tool_calls=True, top_k=4, min_p=0.1, min_tokens=1,
        repetition_penalty=1.1, stop_token_ids=[7],
    )  # fmt: skip
    assert body.options() == {
        "details": True, "max_new_tokens": 5, "temperature": 0.5, "top_p": 0.9, "num_return_sequences": 2,
        "stop": ("x",), "seed": 2**63 - 1, "logprobs": 3, "top_k": 4, "min_p": 0.1, "min_new_tokens": 1,
        "repetition_penalty": 1.1, "stop_token_ids": (7,),
    }  # fmt: skip
    assert body.rows() == [{"messages": ASK, "tools": [{"type": "function"}]}]
    assert chat(tools=[{}], tool_choice="none").rows()[0]["tools"] is None
    assert chat(max_tokens=3).options() == {"details": True, "max_new_tokens": 3}
    assert chat(logprobs=True).options()["logprobs"] == 0
    assert chat().options() == {"details": True}, "what it leaves out is the job's"


def test_messages_become_what_templates_take() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "developer", "content": "d"}, {"role": "user", "content": parts, "name": "n"}, "no message"]
    assert chat(messages=messages).rows()[0]["messages"] == [
        {"role": "system", "content": "d"}, {"role": "user", "content": "ab", "name": "n"}, "no message",
    ]  # fmt: skip
    with pytest.raises(RowError, match=r"^messages: messages\[0\].content\[0\] is of the type 'image_url'"):
        chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]).rows()


def test_completions_and_embeddings() -> None:
    body = parse_body({"model": "m", "prompt": ["a", "b"], "echo": True, "best_of": 1}, CompletionBody)
    assert body.rows() == [{"prompt": "a"}, {"prompt": "b"}]
    assert body.options() == {"details": True, "return_full_text": True}
    assert parse_body({"model": "m", "prompt": "a", "logprobs": 2}, CompletionBody).options()["logprobs"] == 2
    assert parse_body({"model": "m", "input": "a"}, EmbeddingBody).rows() == [{"text": "a"}]
    assert parse_body({"model": "m", "input": ["a", "b"]}, EmbeddingBody).options() == {}


@pytest.mark.parametrize(
    ("kind", "fields", "says"),
    [
        (ChatBody, {"messages": []}, "messages: List should have at least 1 item"),
        (ChatBody, {"messages": ASK, "max_tokens": 0}, "max_tokens: "),
        (ChatBody, {"messages": ASK, "temperature": 3}, "temperature: "),
        (ChatBody, {"messages": ASK, "stream": True}, "stream: "),
        (ChatBody, {"messages": ASK, "presence_penalty": 0.5}, "presence_penalty: is not supported"),
        (ChatBody, {"messages": ASK, "top_logprobs": 1}, "body: top_logprobs needs logprobs"),
        (ChatBody, {"messages": ASK, "tool_choice": "required"}, "tool_choice: "),
        (
            ChatBody,
            {"messages": ASK, "response_format": {"type": "json_object"}},
            "response_format: type 'json_object'",
        ),
        (ChatBody, {"messages": ASK, "audio": {}}, "audio: this field is not known, or not supported"),
        (CompletionBody, {}, "prompt: Field required"),
        (CompletionBody, {"prompt": [1, 2]}, "prompt: "),
        (CompletionBody, {"prompt": "a", "best_of": 4}, "body: best_of other than n"),
        (EmbeddingBody, {"input": []}, "input: "),
        (EmbeddingBody, {"input": "a", "encoding_format": "hex"}, "encoding_format: "),
    ],
)
def test_what_cannot_be_followed_is_refused_by_its_field(kind: type[Body], fields: dict[str, Any], says: str) -> None:
    with pytest.raises(RowError) as caught:
        parse_body({"model": "m", **fields}, kind)
    assert caught.value.type == "InvalidRequest"
    assert caught.value.message.startswith(says)


def test_a_body_is_an_object_with_a_model() -> None:
    with pytest.raises(RowError, match=r"^body: is NoneType"):
        parse_body(None, ChatBody)
    with pytest.raises(RowError, match=r"^model: Field required"):
        parse_body({"messages": ASK}, ChatBody)


@pytest.mark.parametrize(
    ("kind", "schema"),
    [
        (ChatBody, "CreateChatCompletionRequest"),
        (CompletionBody, "CreateCompletionRequest"),
        (EmbeddingBody, "CreateEmbeddingRequest"),
    ],
)
def test_fields_are_openais_or_vllms(kind: type[Body], schema: str) -> None:
    ours = {"top_k", "min_p", "repetition_penalty", "min_tokens", "stop_token_ids", "continue_final_message"}
    bookkeeping = set(Body.model_fields)
    theirs = set(schema_of(schema)["properties"])
    assert set(kind.model_fields) - bookkeeping - ours <= theirs
    assert issubclass(ChatBody, GeneratingBody)
