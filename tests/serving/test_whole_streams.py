"""Streams of engines that have none: int8 weights and static batches answer in one piece a text, with all that other
streams say; and quantised models over HTTP, which answer as they do offline."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from hfray.inference.model_use import check_use, load_use
from hfray.inference.predictor import Predictor
from hfray.serving.messages import Card
from hfray.spec.endpoint import EndpointSpec
from hfray.tasks import TASKS
from tests.models.support import save_decoder, save_model
from tests.serving.office import front_of, replica_of, served
from tests.serving.paced import values

pytestmark = pytest.mark.slow

WRITERS: dict[str, dict[str, Any]] = {
    "batch": {"engine": {"name": "batch"}},
    "int8": {"model": {"quantization": "int8"}},
    "fp4": {"model": {"quantization": "fp4"}},
}
WHOLE = ("batch", "int8")
CLASSIFIERS = ("int8", "fp4", "none")
NUM_TOKENS = 12
PROMPTS = ("once upon", "a cat", "so it was that they met and")
CHAT: list[dict[str, str]] = [{"role": "user", "content": "hello"}]


@dataclass
class Site:
    url: str
    folder: Path
    cards: dict[str, Card]

    def post(self, path: str, body: dict[str, Any]) -> Any:
        reply = httpx.post(self.url + path, json=body, timeout=30)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def events(self, path: str, body: dict[str, Any]) -> list[Any]:
        """Without the mark of their end."""
        reply = httpx.post(self.url + path, json={**body, "stream": True}, timeout=30)
        assert reply.status_code == 200, reply.text
        *found, last = values(reply.text)
        assert last == "[DONE]"
        assert "error" not in found[-1], found[-1]
        return found


def endpoint(path: Path, task: Any, changes: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a model's application."""
    model = {"path": str(path), "dtype": "float32", **changes.get("model", {})}
    return {"task": task, **changes, "model": model}


def writes(folder: Path, name: str, **more: Any) -> dict[str, Any]:
    task = {"name": "text-generation", "max_new_tokens": NUM_TOKENS, **more}
    return endpoint(folder / "writer", task, WRITERS[name])


def reads(folder: Path, quantization: str) -> dict[str, Any]:
    task = {"name": "text-classification", "top_k": 3}
    return endpoint(folder / "reader", task, {"model": {"quantization": quantization}})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("models")
    save_decoder(folder / "writer")
    save_model(folder / "reader")
    specs = {name: writes(folder, name) for name in WRITERS}
    specs |= {f"reader-{each}": reads(folder, each) for each in CLASSIFIERS}
    models = {name: replica_of("", **spec) for name, spec in specs.items()}
    with served(front_of(models)) as url:
        yield Site(url, folder, {name: card for name, (_, card) in models.items()})
    for replica, _ in models.values():
        replica.close()


def test_which_engines_have_no_streams(site: Site) -> None:
    assert {name for name in WRITERS if not site.cards[name].streams} == set(WHOLE)


# -- streams


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("more", [{}, {"top_n_tokens": 2}, {"stop": ["a", "e", "q"]}, {"temperature": 1.0, "seed": 5}])
def test_a_stream_in_tgis_words(site: Site, name: str, more: dict[str, Any]) -> None:
    body = {"inputs": "once upon", "parameters": more}
    [whole] = site.post(f"/models/{name}", {**body, "parameters": {**more, "details": True}})
    found = site.events(f"/models/{name}", body)
    assert found[-1]["generated_text"] == "".join(each["token"]["text"] for each in found) == whole["generated_text"]
    details = found[-1]["details"]
    assert details["finish_reason"] == whole["details"]["finish_reason"]
    assert details["generated_tokens"] == whole["details"]["generated_tokens"] == len(found)
    assert details["input_length"] > len("once upon") / 2
    assert [each["index"] for each in found] == list(range(1, len(found) + 1))
    told = whole["details"]["tokens"]
    assert len(told) >= 2
    for event, token, place in zip(found, told, range(len(told)), strict=False):  # the token of the end is not told
        for key in ("id", "logprob", "special"):
            assert event["token"][key] == token[key], "texts stand where they are whole"
        assert event.get("top_tokens") == (whole["details"]["top_tokens"][place] if "top_n_tokens" in more else None)


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("more", [{}, {"logprobs": True, "top_logprobs": 2}, {"stop": ["a", "e", "q"]}])
def test_a_chats_stream(site: Site, name: str, more: dict[str, Any]) -> None:
    body = {"model": name, "messages": CHAT, **more}
    whole = site.post("/v1/chat/completions", body)
    [piece, usage] = site.events("/v1/chat/completions", {**body, "stream_options": {"include_usage": True}})
    [wanted], [choice] = whole["choices"], piece["choices"]
    assert choice["delta"] == {"role": "assistant", "content": wanted["message"]["content"]}
    assert choice["finish_reason"] == wanted["finish_reason"]
    assert choice["logprobs"] == wanted["logprobs"]
    assert (usage["choices"], usage["usage"]) == ([], whole["usage"])
    assert usage["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_a_stream_of_several_texts(site: Site, name: str, temperature: float, path: str) -> None:
    what = {"messages": CHAT} if "chat" in path else {"prompt": "once upon"}
    body = {"model": name, **what, "n": 3, "temperature": temperature, "seed": 7}
    whole = site.post(path, body)
    *pieces, usage = site.events(path, {**body, "stream_options": {"include_usage": True}})
    choices = [choice for piece in pieces for choice in piece["choices"]]
    assert [each["index"] for each in choices] == [0, 1, 2]
    texts = [each["text"] if "text" in each else each["delta"]["content"] for each in choices]
    assert texts == [each["text"] if "text" in each else each["message"]["content"] for each in whole["choices"]]
    assert len(set(texts)) == (3 if temperature else 1)
    assert [each["finish_reason"] for each in choices] == [each["finish_reason"] for each in whole["choices"]]
    assert usage["usage"] == whole["usage"]


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("path", ["/models/{}", "/v1/completions"])
def test_a_stream_of_a_prompt_that_is_too_long(site: Site, name: str, path: str) -> None:
    text = "x " * 300
    body = {"inputs": text} if "{}" in path else {"model": name, "prompt": text}
    reply = httpx.post(site.url + path.format(name), json={**body, "stream": True}, timeout=30)
    assert reply.status_code == 422
    assert reply.headers["content-type"] == "application/json"
    assert "tokens" in json.dumps(reply.json()["error"])


# -- the same online as offline


def offline(spec: dict[str, Any], rows: list[dict[str, Any]]) -> list[Any]:
    """Each row by itself, as a job's worker answers it."""
    checked, _, _ = check_use(EndpointSpec.model_validate(spec))
    ready = load_use(checked)
    try:
        task = TASKS[checked.task.name](checked.task, ready.processor, ready.info)
        predictor = Predictor(task, ready.engine)
        return [result for row in rows for result in predictor.predict([row])]
    finally:
        ready.engine.close()


@pytest.mark.parametrize("name", ["int8", "fp4"])
def test_a_quantised_writer_writes_as_it_does_offline(site: Site, name: str) -> None:
    body = {"parameters": {"details": True}}
    found = [site.post(f"/models/{name}", {**body, "inputs": prompt})[0] for prompt in PROMPTS]
    wanted = offline(writes(site.folder, name, details=True, logprobs=0), [{"prompt": each} for each in PROMPTS])
    assert [each["generated_text"] for each in found] == [each["text"] for each in wanted]
    scores = [[token["logprob"] for token in each["details"]["tokens"]] for each in found]
    assert scores == [pytest.approx([token["logprob"] for token in each["logprobs"]], abs=1e-4) for each in wanted]
    full = [site.post("/models/batch", {**body, "inputs": prompt})[0] for prompt in PROMPTS]
    differ = [abs(one[0] - other["details"]["tokens"][0]["logprob"]) for one, other in zip(scores, full, strict=True)]
    assert max(differ) > 1e-3, "weights that are not quantised show nothing"


@pytest.mark.parametrize("quantization", ["int8", "fp4"])
def test_a_quantised_classifier_says_what_it_does_offline(site: Site, quantization: str) -> None:
    def scores(name: str) -> list[dict[str, float]]:
        replies = [site.post(f"/models/{name}", {"inputs": text})[0] for text in PROMPTS]
        return [{each["label"]: each["score"] for each in reply} for reply in replies]

    found = scores(f"reader-{quantization}")
    wanted = offline(reads(site.folder, quantization), [{"text": each} for each in PROMPTS])
    for one, other in zip(found, wanted, strict=True):
        assert one == pytest.approx({each["label"]: each["score"] for each in other}, abs=1e-5)
    full = scores("reader-none")
    assert max(abs(one["hot"] - other["hot"]) for one, other in zip(found, full, strict=True)) > 1e-5, (
        "weights that are not quantised show nothing"
    )
