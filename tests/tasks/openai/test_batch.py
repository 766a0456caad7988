"""Requests answered by a real tiny model, and the bodies checked against OpenAI's own description."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest

from hfray.engines.batch import BatchEngine
from hfray.errors import RowError, SpecError
from hfray.inference.predictor import Predictor
from hfray.tasks import TASKS
from hfray.tasks.base import ModelInfo, Processor
from hfray.tasks.openai.batch import BatchRequests, url_of
from hfray.types import Encoded
from tests.models.support import letter_tokenizer, loaded
from tests.tasks.generation_support import tokenizer_of
from tests.tasks.openai.support import check_body
from tests.tasks.support import bert_config, tiny_model
from tests.tasks.test_text_generation import model_of

ASK = [{"role": "user", "content": "Hi"}]
CHAT, TEXT, EMBED = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"


def requests(name: str = "text-generation", **options: Any) -> BatchRequests:
    task = TASKS[name]
    tokenizer = letter_tokenizer() if name == "feature-extraction" else tokenizer_of("phi-3-mini")
    info = ModelInfo(name="m", model_type="llama", max_length=256)
    settings = {"max_new_tokens": 6, "input": "messages"} if name == "text-generation" else {}
    inner = task(task.Options(**{**settings, **options}), Processor(tokenizer=tokenizer), info)
    return BatchRequests(inner, {"m": None, "folder/m": None, "tuned": "tuned"})


def row(url: str, custom_id: Any = "a", method: str = "POST", **body: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": method, "url": url, "body": {"model": "m", **body}}


def answers(task: BatchRequests, *rows: dict[str, Any]) -> list[Any]:
    """Parsed bodies, and RowErrors."""
    embeds = task.options.name == "feature-extraction"
    model = tiny_model("AutoModel", bert_config(vocab_size=200)) if embeds else model_of("phi-3-mini")
    engine = BatchEngine(loaded(model))
    try:
        found = Predictor(task, engine).predict(rows)
    finally:
        engine.close()
    return [each if isinstance(each, RowError) else json.loads(each) for each in found]


def whole(body: dict[str, Any]) -> dict[str, Any]:
    return {"id": "x", "created": 1, **body}


def test_a_seed_is_a_requests_own_wherever_its_line_is() -> None:
    ask: dict[str, Any] = {"messages": ASK, "temperature": 1.5, "n": 2}
    first, other, again, drawn = answers(
        requests(), row(CHAT, **ask, seed=5), row(CHAT, **ask, seed=6), row(CHAT, **ask, seed=5), row(CHAT, **ask)
    )
    assert first == again
    assert len({json.dumps(each["choices"]) for each in (first, other, drawn)}) == 3
    contents = [choice["message"]["content"] for choice in first["choices"]]
    assert contents[0] != contents[1]
    prompts = requests(input="prompt").encode([row(TEXT, prompt=["a", "b"], temperature=1.5, n=2, seed=5)])
    assert [each.own_places for each in prompts if isinstance(each, Encoded)] == [((0, 0), (0, 1), (1, 0), (1, 1))]


def test_chats() -> None:
    first, again, sampled, copies, told = answers(
        requests(),
        row(CHAT, messages=ASK, max_tokens=4),
        row(CHAT, messages=ASK, max_tokens=4),
        row(CHAT, messages=ASK, n=3, temperature=1.5),
        row(CHAT, messages=ASK, n=2),
        row(CHAT, messages=ASK, logprobs=True, top_logprobs=2),
    )
    for body in (first, sampled, copies, told):
        check_body(whole(body), "CreateChatCompletionResponse")
    assert first == again
    assert first["model"] == "m"
    (choice,) = first["choices"]
    assert (choice["finish_reason"], choice["logprobs"]) == ("length", None)
    assert first["usage"]["completion_tokens"] == 4
    assert first["usage"]["total_tokens"] == 4 + first["usage"]["prompt_tokens"]
    texts = [choice["message"]["content"] for choice in sampled["choices"]]
    assert len(set(texts)) == 3
    assert [choice["index"] for choice in sampled["choices"]] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in copies["choices"]}) == 1 < len(copies["choices"])
    content = told["choices"][0]["logprobs"]["content"]
    assert len(content) == 6
    assert content[0]["top_logprobs"][0] == {key: content[0][key] for key in ("token", "logprob", "bytes")}


def test_texts() -> None:
    body, told = answers(
        requests(input="prompt"), row(TEXT, prompt=["Hello", "and"], echo=True), row(TEXT, prompt="Hello", logprobs=1)
    )
    for each in (body, told):
        check_body(whole(each), "CreateCompletionResponse")
    assert [choice["text"].split()[0][:3] for choice in body["choices"]] == ["Hel", "and"]
    logprobs = told["choices"][0]["logprobs"]
    assert len(logprobs["tokens"]) == len(logprobs["token_logprobs"]) == len(logprobs["text_offset"]) == 6
    assert logprobs["text_offset"][:2] == [0, len(logprobs["tokens"][0])]


def test_embeddings() -> None:
    one, many, packed, wrong = answers(
        requests("feature-extraction"),
        row(EMBED, input="abc"),
        row(EMBED, input=["abc", "xy"]),
        row(EMBED, input="abc", encoding_format="base64"),
        row(EMBED, input="abc", dimensions=3),
    )
    check_body(one, "CreateEmbeddingResponse")
    check_body(many, "CreateEmbeddingResponse")
    vector = np.array(one["data"][0]["embedding"], np.float32)
    assert vector.shape == (64,)
    np.testing.assert_allclose(many["data"][0]["embedding"], vector, atol=1e-5)
    np.testing.assert_allclose(
        np.frombuffer(base64.b64decode(packed["data"][0]["embedding"]), "<f4"), vector, atol=1e-5
    )
    assert many["usage"] == {"prompt_tokens": 5 + 4, "total_tokens": 5 + 4}
    assert isinstance(wrong, RowError)
    assert wrong.message == "dimensions: the model's embeddings have 64"


@pytest.mark.parametrize(
    ("bad", "type_", "says"),
    [
        (row(CHAT, None, messages=ASK), "MissingCustomId", "custom_id: "),
        (row(CHAT, 5, messages=ASK), "MissingCustomId", "custom_id: "),
        (row(CHAT, "x" * 513, messages=ASK), "MissingCustomId", "custom_id: has over 512"),
        (row(TEXT, prompt="a"), "InvalidUrl", "url: is '/v1/completions'; this batch is for /v1/chat/completions"),
        (row(CHAT, method="GET", messages=ASK), "InvalidMethod", "method: is 'GET'"),
        (row(CHAT, model="gpt-4o", messages=ASK), "ModelNotFound", "model: 'gpt-4o' is not served here"),
        (row(CHAT, messages=ASK, top_p=0), "InvalidRequest", "top_p: "),
        (row(CHAT, messages=ASK, stop=["a"] * 5), "InvalidRequest", "stop: "),
        (row(CHAT, messages=ASK, min_tokens=9, max_tokens=3), "InvalidRequest", "body: min_new_tokens"),
        (row(CHAT, messages=ASK, max_tokens=999), "InvalidRequest", "task.max_new_tokens 999 is too much"),
        (row(CHAT, messages=[{"role": "user", "content": "a " * 300}]), "PromptTooLong", "the prompt has"),
        (row(CHAT, messages=[{"role": "robot", "content": "a"}]), "BadMessages", "messages[0].role is 'robot'"),
        ({"custom_id": "a", "method": "POST", "url": CHAT, "body": None}, "InvalidRequest", "body: is NoneType"),
        ({}, "MissingCustomId", "custom_id: "),
    ],
)
def test_a_bad_request_fails_alone(bad: dict[str, Any], type_: str, says: str) -> None:
    found = requests().encode([row(CHAT, "first", messages=ASK), bad, row(CHAT, "last", messages=ASK)])
    assert isinstance(found[1], RowError)
    assert (found[1].type, found[1].message[: len(says)]) == (type_, says)
    assert not isinstance(found[0], RowError)
    assert not isinstance(found[2], RowError)


def test_which_endpoint_a_task_is_for() -> None:
    generation, features = TASKS["text-generation"].Options, TASKS["feature-extraction"].Options
    assert url_of(generation(input="messages")) == CHAT  # type: ignore[call-arg]
    assert url_of(generation(name="text-generation")) == TEXT
    assert url_of(features(name="feature-extraction")) == EMBED
    for options in (features(pooling="none"), TASKS["fill-mask"].Options(name="fill-mask")):  # type: ignore[call-arg]
        with pytest.raises(SpecError, match="openai-batch holds requests for chats"):
            url_of(options)


def test_summaries_say_why_answers_end() -> None:
    assert requests().summarize('{"choices": [{"finish_reason": "stop"}]}').label == "stop"
    assert requests("feature-extraction").summarize('{"object": "list"}').label is None
