"""The clients that people have: `openai`, `huggingface_hub`, `requests` as tutorials use it, over real HTTP."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import requests
from huggingface_hub import InferenceClient
from PIL import Image

from tests.models.support import CHAT_TEMPLATE, save_decoder, save_model
from tests.serving.office import front_of, replica_of, served

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("online")]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway with four models."""
    folder = tmp_path_factory.mktemp("models")
    models = {
        "sentiment": replica_of(save_model(folder / "sentiment"), {"name": "text-classification", "top_k": 3}),
        "embedder": replica_of(save_model(folder / "embedder", "AutoModel"), "feature-extraction"),
        "tagger": replica_of(
            save_model(folder / "tagger", "AutoModelForTokenClassification", labels=("O", "B-PER", "I-PER")),
            "token-classification",
        ),
        "chat": replica_of(save_decoder(folder / "chat"), {"name": "text-generation", "max_new_tokens": 8}),
    }
    assert "assistant" in CHAT_TEMPLATE
    with served(front_of(models)) as address:
        yield address
    for replica, _ in models.values():
        replica.close()


@pytest.fixture(scope="module")
def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


# -- openai


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["chat", "embedder", "sentiment", "tagger"]
    assert client.models.retrieve("chat").id == "chat"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")


def test_a_chat(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "system", "content": "be short"}, {"role": "user", "content": "hello"}]
    found = client.chat.completions.create(model="chat", messages=messages, logprobs=True, top_logprobs=2)
    assert found.object == "chat.completion"
    assert found.id.startswith("chatcmpl-")
    assert found.usage is not None
    assert found.usage.completion_tokens <= 8
    choice = found.choices[0]
    assert choice.finish_reason in ("stop", "length")
    assert choice.logprobs is not None
    stream = client.chat.completions.create(
        model="chat", messages=messages, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == choice.message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage == found.usage
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


def test_several_choices_and_a_seed(client: openai.OpenAI) -> None:
    ask: Any = {"model": "chat", "messages": [{"role": "user", "content": "hi"}], "n": 3, "temperature": 1, "seed": 7}
    first, second = (client.chat.completions.create(**ask) for _ in range(2))
    texts = [choice.message.content for choice in first.choices]
    assert texts == [choice.message.content for choice in second.choices]
    assert len(set(texts)) > 1
    del ask["seed"]
    unseeded = {client.chat.completions.create(**ask).choices[0].message.content for _ in range(4)}
    assert len(unseeded) > 1, "without a seed every request draws anew"


def test_a_completion(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="chat", prompt="once upon", max_tokens=5)
    stream = client.completions.create(model="chat", prompt="once upon", max_tokens=5, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text


@pytest.mark.parametrize("option", [{"logprobs": 2}, {"echo": True}])
def test_what_a_stream_cannot_show_is_refused(client: openai.OpenAI, option: dict[str, Any]) -> None:
    ask: Any = {"model": "chat", "prompt": "once upon", "max_tokens": 3, **option}
    assert client.completions.create(**ask).choices
    with pytest.raises(openai.UnprocessableEntityError, match="of a stream"):
        client.completions.create(**ask, stream=True)


def test_a_stream_counts_as_the_whole_does(client: openai.OpenAI) -> None:
    ask: Any = {"model": "chat", "messages": [{"role": "user", "content": "hi"}], "n": 2, "max_tokens": 4}
    whole = client.chat.completions.create(**ask).usage
    chunks = list(client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage == whole


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings(client: openai.OpenAI, encoding: Any) -> None:
    found = client.embeddings.create(model="embedder", input=["a cat", "dog"], encoding_format=encoding)
    assert [each.index for each in found.data] == [0, 1]
    assert found.usage.prompt_tokens > 4
    one = client.embeddings.create(model="embedder", input="a cat")
    vectors = [found.data[0].embedding, one.data[0].embedding]
    if encoding == "base64":
        import base64

        vectors[0] = np.frombuffer(base64.b64decode(vectors[0]), "<f4").tolist()  # type: ignore[arg-type]
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({"model": "nobody"}, 404, "no such model"),
        ({"messages": []}, 422, "messages"),
        ({"max_tokens": 100_000}, 422, "max_tokens"),
        ({"n": 9}, 422, "n: "),
        ({"temperature": "hot"}, 422, "temperature"),
        ({"extra_body": {"mystery": 1}}, 422, "mystery"),
        ({"model": "embedder"}, 422, "feature-extraction"),
        ({"messages": [{"role": "user", "content": "x " * 2000}]}, 422, "tokens"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://a/b"}}]}]}, 422,
         "image_url"),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_a_bad_chat_is_refused_with_the_field(
    client: openai.OpenAI, changes: dict[str, Any], status: int, says: str, stream: bool
) -> None:
    ask: Any = {"model": "chat", "messages": [{"role": "user", "content": "hi"}], "stream": stream, **changes}
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(**ask)
    assert caught.value.status_code == status
    assert isinstance(caught.value.body, dict)
    assert says in caught.value.body["message"]


# -- huggingface_hub


def test_inference_client_classifies(url: str) -> None:
    found = InferenceClient(model=f"{url}/models/sentiment").text_classification("so warm today")
    assert {each.label for each in found} == {"cold", "warm", "hot"}
    assert sum(each.score for each in found) == pytest.approx(1, abs=1e-4)


def test_inference_client_embeds_tags_and_generates(url: str) -> None:
    vector = InferenceClient(model=f"{url}/models/embedder").feature_extraction("a cat")
    assert vector.shape == (1, 64)
    tags = InferenceClient(model=f"{url}/models/tagger").token_classification("Ann met Bob")
    assert all(hasattr(tag, "score") for tag in tags)
    generator = InferenceClient(model=f"{url}/models/chat")
    whole = generator.text_generation("once upon", max_new_tokens=6, details=True)
    pieces = list(generator.text_generation("once upon", max_new_tokens=6, stream=True))
    assert "".join(pieces) == whole.generated_text
    assert whole.details is not None
    assert whole.details.generated_tokens <= 6
    assert len(whole.details.tokens) == whole.details.generated_tokens - (whole.details.finish_reason == "eos_token")
    assert all(each.text and each.logprob is not None and each.logprob <= 0 for each in whole.details.tokens)


def test_inference_client_chats_below_a_models_url(url: str) -> None:
    client = InferenceClient(base_url=f"{url}/models/chat")
    found = client.chat_completion([{"role": "user", "content": "hello"}], max_tokens=5)
    assert found.choices[0].message.content is not None
    pieces = client.chat_completion([{"role": "user", "content": "hello"}], max_tokens=5, stream=True)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == found.choices[0].message.content


# -- requests, as tutorials do it


def test_requests_of_a_tutorial(url: str) -> None:
    one = requests.post(f"{url}/models/sentiment", json={"inputs": "I love this"}, timeout=30)
    assert one.status_code == 200
    assert one.headers["x-request-id"]
    many = requests.post(f"{url}/models/sentiment", json={"inputs": ["I love this", "so cold"]}, timeout=30).json()
    assert len(many) == 2
    assert many[0][0]["label"] == one.json()[0][0]["label"]
    assert many[0][0]["score"] == pytest.approx(one.json()[0][0]["score"], abs=1e-5)
    wrong = requests.post(f"{url}/models/sentiment", json={"input": "I love this"}, timeout=30)
    assert wrong.status_code == 422
    assert "inputs" in wrong.json()["error"]
    missing = requests.post(f"{url}/models/sentimental", json={"inputs": "x"}, timeout=30)
    assert missing.status_code == 404
    assert missing.json()["error_type"] == "validation"


def test_an_image_for_a_model_of_text_is_refused(url: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    found = httpx.post(f"{url}/models/sentiment", content=file.getvalue(), headers={"content-type": "image/png"})
    assert found.status_code == 415
    assert json.loads(found.content)["error"]


def test_health(url: str) -> None:
    assert httpx.get(f"{url}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{url}/readyz").status_code == 200
    assert httpx.get(f"{url}/models/chat").json()["pipeline_tag"] == "text-generation"
