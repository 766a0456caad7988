"""How much one request may ask for, each bound from both sides (threat T13), and a template that does not end (T14)."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.serving.site import Site
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
