"""A served model with adapters, over HTTP, against PEFT with each of them alone: in full precision and in four bits."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from hfray.models.load import load_model
from hfray.spec.sections import ModelSpec
from hfray.tasks import TASKS
from tests.models.lora_support import save_lora
from tests.models.support import save_decoder, save_model
from tests.serving.office import front_of, replica_of, served

pytestmark = pytest.mark.slow

ADAPTERS = ("lawyer", "pirate")
NAMES = ("talks", *(f"talks:{name}" for name in ADAPTERS))
PROMPTS = ("once upon", "a cat", "so it was that they met and")
NUM_TOKENS = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("talks")
    save_decoder(path / "base")
    model = AutoModelForCausalLM.from_pretrained(path / "base")
    for seed, name in enumerate(ADAPTERS):
        save_lora(model, path / "adapters" / name, seed=seed, target_modules=["q_proj", "v_proj", "down_proj"])
    return path


@pytest.fixture(scope="module", params=["none", "nf4"])
def url(folder: Path, request: pytest.FixtureRequest) -> Iterator[tuple[str, Callable[[str, str], str]]]:
    """The address, and what PEFT writes: (model, prompt) -> text."""
    base = {"path": str(folder / "base"), "dtype": "float32", "quantization": request.param}
    adapters = {name: str(folder / "adapters" / name) for name in ADAPTERS}
    replica, card = replica_of("", "text-generation", model={**base, "adapters": adapters})
    alone = {
        name: load_model(
            ModelSpec(**base, **({"adapter": str(folder / "adapters" / adapter)} if adapter else {})),
            TASKS["text-generation"],
        ).model
        for name, adapter in zip(NAMES, ("", *ADAPTERS), strict=True)
    }
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")

    def wanted(name: str, prompt: str) -> str:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.inference_mode():
            found = alone[name].generate(input_ids=ids, max_new_tokens=NUM_TOKENS, do_sample=False)
        return str(tokenizer.decode(found[0, ids.shape[1] :], skip_special_tokens=True))

    with served(front_of({"talks": (replica, card)})) as address:
        yield address, wanted
    replica.close()


def test_all_at_once_each_as_alone(url: tuple[str, Callable[[str, str], str]]) -> None:
    address, wanted = url
    pairs = list(itertools.product(NAMES, PROMPTS)) * 2
    texts = {pair: wanted(*pair) for pair in set(pairs)}
    assert len({texts[name, PROMPTS[0]] for name in NAMES}) == len(NAMES), "adapters that change nothing show nothing"
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)

    def ask(pair: tuple[str, str]) -> str:
        name, prompt = pair
        found = client.completions.create(model=name, prompt=prompt, max_tokens=NUM_TOKENS, temperature=0)
        assert found.model == name
        return found.choices[0].text

    with ThreadPoolExecutor(len(pairs)) as threads:
        assert dict(zip(pairs, threads.map(ask, pairs), strict=True)) == texts


def test_below_a_models_address_and_in_pieces(url: tuple[str, Callable[[str, str], str]]) -> None:
    address, wanted = url
    for name in NAMES:
        body = {"inputs": PROMPTS[0], "parameters": {"max_new_tokens": NUM_TOKENS, "do_sample": False}}
        found = httpx.post(f"{address}/models/{name}", json=body)
        assert found.json()[0]["generated_text"] == wanted(name, PROMPTS[0])
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    messages: Any = [{"role": "user", "content": "hello"}]
    settings: Any = {"messages": messages, "max_tokens": NUM_TOKENS, "temperature": 0}
    whole = client.chat.completions.create(model=NAMES[1], **settings).choices[0].message.content
    pieces = client.chat.completions.create(model=NAMES[1], stream=True, **settings)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == whole
    assert whole != client.chat.completions.create(model=NAMES[0], **settings).choices[0].message.content


def test_which_there_are(url: tuple[str, Callable[[str, str], str]]) -> None:
    address, _ = url
    assert [each["id"] for each in httpx.get(f"{address}/v1/models").json()["data"]] == list(NAMES)
    for name in ("talks:nobody", "talks:", "nobody:pirate"):
        found = httpx.post(f"{address}/v1/completions", json={"model": name, "prompt": "a"})
        assert found.status_code == 404, name
        assert found.json()["error"]["message"]


def test_a_classifier_with_heads_of_their_own(tmp_path: Path) -> None:
    path = save_model(tmp_path / "base", labels=("cold", "warm", "hot"))
    model = AutoModelForSequenceClassification.from_pretrained(path)
    adapted = {
        name: save_lora(model, tmp_path / name, seed=seed, task_type="SEQ_CLS", target_modules=["query", "value"])
        for seed, name in enumerate(ADAPTERS)
    }
    adapters = {name: str(tmp_path / name) for name in ADAPTERS}
    base = {"path": str(path), "dtype": "float32", "adapters": adapters}
    replica, card = replica_of("", {"name": "text-classification", "top_k": 3}, model=base)
    tokenizer = AutoTokenizer.from_pretrained(path)
    try:
        with served(front_of({"feels": (replica, card)})) as address, torch.inference_mode():
            for name in ADAPTERS:
                logits = adapted[name](**tokenizer("so warm", return_tensors="pt")).logits[0]
                found = httpx.post(f"{address}/models/feels:{name}", json={"inputs": "so warm"}).json()[0]
                scores = {each["label"]: each["score"] for each in found}
                labels = [model.config.id2label[number] for number in range(3)]
                assert [scores[label] for label in labels] == pytest.approx(logits.softmax(0).tolist(), abs=1e-5)
    finally:
        replica.close()
