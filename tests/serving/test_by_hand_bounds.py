"""How much one request may ask for, each bound from both sides (threat T13), and a template that does not end (T14)."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.serving.site import OPENAI, Site
from tests.serving.zoo import LIMITS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({"n": 8, "max_tokens": 2}, True), ({"n": 9, "max_tokens": 2}, False), ({"n": 0}, False),
        ({"stop": ["a" * 64] * 4}, True), ({"stop": ["a"] * 5}, False), ({"stop": "a" * 65}, False),
        ({"stop": [""]}, False),
        ({"max_tokens": LIMITS["max_new_tokens"]}, True), ({"max_tokens": LIMITS["max_new_tokens"] + 1}, False),
        ({"max_tokens": 0}, False), ({"n": 2, "max_tokens": LIMITS["max_total_tokens"] // 2}, True),
        ({"n": 3, "max_tokens": LIMITS["max_total_tokens"] // 2}, False),
        ({"temperature": 2}, True), ({"temperature": 2.01}, False), ({"temperature": -0.01}, False),
        ({"top_p": 1}, True), ({"top_p": 0}, False), ({"top_p": 1.01}, False),
        ({"min_tokens": 3, "max_tokens": 3}, True), ({"min_tokens": 4, "max_tokens": 3}, False),
        ({"repetition_penalty": 0.01, "temperature": 1}, True), ({"repetition_penalty": 1e-9}, False),
        ({"top_k": 2**31 - 1, "temperature": 1}, True), ({"top_k": 2**31}, False),
        ({"stop_token_ids": [2**31 - 1] * 16}, True), ({"stop_token_ids": [1] * 17}, False),
        ({"stop_token_ids": [-1]}, False),
        ({"seed": -(2**63), "temperature": 1}, True), ({"seed": 2**64}, False), ({"best_of": 2}, False),
        ({"echo": 1}, False),
        ({"logprobs": 20}, True), ({"logprobs": 21}, False), ({"logprobs": -1}, False),
        ({"logit_bias": {"5": 100}}, False),
        ({"prompt": ["a"] * 64, "max_tokens": 2}, True), ({"prompt": ["a"] * 65, "max_tokens": 1}, False),
        ({"prompt": []}, False),
        ({"prompt_embeds": "AAAA"}, False), ({"guided_regex": "(a+)+$"}, False),
    ],
    ids=str,
)  # fmt: skip
def test_bounds_of_generation(site: Site, change: dict[str, Any], fits: bool) -> None:
    reply = site.json("/v1/completions", {"model": "text-generation", "prompt": "a", "max_tokens": 4, **change})
    assert (reply.status == 200) == fits, reply.body
    assert reply.status in (200, 422)


CHAT: dict[str, Any] = {"model": "text-generation", "messages": [{"role": "user", "content": "a"}]}


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({"logprobs": True, "top_logprobs": 20}, True), ({"logprobs": True, "top_logprobs": 21}, False),
        ({"logprobs": True, "top_logprobs": 0}, True), ({"logprobs": True, "top_logprobs": -1}, False),
        ({"top_logprobs": 1}, False),
        ({"max_completion_tokens": LIMITS["max_new_tokens"]}, True),
        ({"max_completion_tokens": LIMITS["max_new_tokens"] + 1}, False), ({"max_completion_tokens": 0}, False),
        ({"max_tokens": 1, "max_completion_tokens": LIMITS["max_new_tokens"] + 1}, False),
        ({"n": 8, "max_completion_tokens": 2}, True), ({"n": 9, "max_completion_tokens": 2}, False),
        ({"n": 0}, False),
        ({"n": 2, "max_completion_tokens": LIMITS["max_total_tokens"] // 2}, True),
        ({"n": 3, "max_completion_tokens": LIMITS["max_total_tokens"] // 2}, False),
        ({"min_tokens": 2, "max_completion_tokens": 2}, True), ({"min_tokens": 3, "max_completion_tokens": 2}, False),
        ({"stop": ["a" * 64] * 4}, True), ({"stop": ["a"] * 5}, False), ({"stop": "a" * 64}, True),
        ({"stop": "a" * 65}, False), ({"stop": ["a" * 65]}, False), ({"stop": ""}, False),
        ({"messages": []}, False), ({"stream_options": {"include_usage": 1}}, False),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_bounds_of_chats(site: Site, change: dict[str, Any], fits: bool, stream: bool) -> None:
    reply = site.json("/v1/chat/completions", {**CHAT, "stream": stream, **change})
    assert reply.status == (200 if fits else 422), reply.body
    if stream and fits:
        assert reply.body.count(b"[DONE]") == 1, reply.body


def test_the_largest_chat_has_all_that_it_asked_for(site: Site) -> None:
    most = {"n": 2, "max_completion_tokens": LIMITS["max_new_tokens"], "min_tokens": LIMITS["max_new_tokens"]}
    found = site.json("/v1/chat/completions", {**CHAT, **most, "logprobs": True, "top_logprobs": 20}).json
    assert found["usage"]["completion_tokens"] == 2 * LIMITS["max_new_tokens"] == LIMITS["max_total_tokens"]
    for choice in found["choices"]:
        assert len(choice["logprobs"]["content"]) == LIMITS["max_new_tokens"]
        assert {len(token["top_logprobs"]) for token in choice["logprobs"]["content"]} == {20}


@pytest.mark.parametrize(
    ("path", "body", "fits"),
    [
        ("embeddings", {"input": ["a"] * 64}, True), ("embeddings", {"input": ["a"] * 65}, False),
        ("embeddings", {"input": []}, False), ("embeddings", {"input": [1, 2]}, False),
        ("embeddings", {"input": ["a" * LIMITS["max_chars"], "a"]}, True),
        ("embeddings", {"input": ["a" * (LIMITS["max_chars"] + 1), "a"]}, False),
        ("embeddings", {"input": "a", "dimensions": 0}, False),
        ("rerank", {"documents": ["a"] * 64}, True), ("rerank", {"documents": ["a"] * 65}, False),
        ("rerank", {"documents": [{"text": "a"}] * 64}, True), ("rerank", {"documents": [{"text": "a"}] * 65}, False),
        ("rerank", {"documents": []}, False),
        ("rerank", {"documents": ["a" * LIMITS["max_chars"]]}, True),
        ("rerank", {"documents": [{"text": "a" * (LIMITS["max_chars"] + 1)}]}, False),
        ("rerank", {"query": "a" * (LIMITS["max_chars"] + 1)}, False),
        ("rerank", {"top_n": 1}, True), ("rerank", {"top_n": 0}, False),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_bounds_of_vectors_and_ranks(site: Site, path: str, body: dict[str, Any], fits: bool) -> None:
    reply = site.json(f"/v1/{path}", {**OPENAI[f"/v1/{path}"], **body})
    assert reply.status == (200 if fits else 422), reply.body
    if fits:
        given = body.get("input", body.get("documents", ["a"]))
        assert len(reply.json["data" if path == "embeddings" else "results"]) == len(given)


@pytest.mark.parametrize(
    ("task", "body", "fits"),
    [
        ("text-classification", {"inputs": ["a"] * 64}, True),
        ("text-classification", {"inputs": ["a"] * 65}, False),
        ("text-generation", {"inputs": "a", "parameters": {"num_return_sequences": 8, "do_sample": True}}, True),
        ("text-generation", {"inputs": "a", "parameters": {"num_return_sequences": 9, "do_sample": True}}, False),
        ("text-generation", {"inputs": "a", "parameters": {"top_n_tokens": 20, "details": True}}, True),
        ("text-generation", {"inputs": "a", "parameters": {"top_n_tokens": 21, "details": True}}, False),
        ("text-generation", {"inputs": "a", "parameters": {"stop": ["a"] * 5}}, False),
        ("text-generation", {"inputs": "a", "parameters": {"stop": ["a" * 65]}}, False),
        ("text-generation", {"inputs": "a", "parameters": {"max_new_tokens": 65}}, False),
        ("text-generation", {"inputs": ["a"] * 3, "parameters": {"max_new_tokens": 64}}, False),
        ("text-generation", {"inputs": "a", "parameters": {"best_of": 2}}, False),
        ("summarization", {"inputs": "a", "parameters": {"num_beams": 8, "max_new_tokens": 2}}, True),
        ("summarization", {"inputs": "a", "parameters": {"num_beams": 9}}, False),
        ("sentence-similarity", {"inputs": {"source_sentence": "a", "sentences": ["b"] * 256}}, True),
        ("sentence-similarity", {"inputs": {"source_sentence": "a", "sentences": ["b"] * 257}}, False),
        ("text-ranking", {"query": "a", "texts": ["b"] * 256}, True),
        ("text-ranking", {"query": "a", "texts": ["b"] * 257}, False),
        ("zero-shot-classification", {"inputs": ["a"] * 64, "parameters": {"candidate_labels": list("abcde")}}, False),
        ("fill-mask", {"inputs": "a [MASK]", "parameters": {"top_k": 100}}, True),
        ("fill-mask", {"inputs": "a [MASK]", "parameters": {"top_k": 101}}, False),
    ],
    ids=str,
)  # fmt: skip
def test_bounds_of_tasks(site: Site, task: str, body: Any, fits: bool) -> None:
    reply = site.json(f"/models/{task}", body)
    assert (reply.status == 200) == fits, reply.body
    assert reply.status in (200, 422)


# -- templates


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("word", ["loop", "range", "long"])
def test_a_template_without_end_is_refused_while_others_go_on(site: Site, word: str, stream: bool) -> None:
    body = {"model": "endless", "messages": [{"role": "user", "content": word}], "stream": stream}
    waits = []
    with ThreadPoolExecutor(1) as pool:
        begun = time.monotonic()
        refused = pool.submit(site.json, "/v1/chat/completions", body)
        while not refused.done():
            sent = time.monotonic()
            other = {"model": "endless", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
            assert site.json("/v1/chat/completions", other).status == 200
            assert site.json("/v1/completions", {"model": "endless", "prompt": "a", "max_tokens": 1}).status == 200
            waits.append(time.monotonic() - sent)
        took_s = time.monotonic() - begun
    refused.result().assert_error(422)
    assert "chat template" in refused.result().json["error"]["message"]
    assert took_s - max(waits) < 2
    assert max(waits) < 1
