"""The document of a gateway: valid, of its models as they are, and only of those that the reader may ask."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import validate

from hfray.serving.front import Front
from hfray.serving.hf.forms import FORMS
from hfray.serving.keys import KeyRing
from hfray.serving.messages import Card
from hfray.serving.openapi import MAX_KEPT, Documents, document
from hfray.serving.routes import make_app
from hfray.spec.endpoint import GatewaySpec, LimitsSpec
from tests.serving.front import make_keys, run_front

LIMITS = LimitsSpec()


def card(task: str, name: str = "", **fields: Any) -> Card:
    return Card(name or task, task, {}, limits=LIMITS, max_length=64, **fields)


def cards(*found: Card) -> dict[str, Card]:
    return {each.name: each for each in found}


def resolved(found: dict[str, Any], path: str, method: str = "post") -> dict[str, Any]:
    """The schema of an operation's JSON body, with the definitions that it refers to."""
    schema = found["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"]
    return {**schema, "components": found["components"]}


@pytest.mark.slow
def test_it_is_valid_with_every_task_and_with_none() -> None:
    validate(document(cards(*(card(task, has_chat=True, adapters=("a", "b")) for task in FORMS)), secured=True))
    validate(document({}))


@pytest.mark.parametrize("secured", [False, True])
def test_operations_need_a_key_where_there_are_keys(secured: bool) -> None:
    every = document(cards(*(card(task, has_chat=True) for task in FORMS)), secured=secured)
    assert every.get("security", []) == ([{"key": []}] if secured else [])
    assert every["paths"]["/healthz"]["get"]["security"] == []
    operations = [each for path in every["paths"].values() for each in path.values()]
    assert len({each["operationId"] for each in operations}) == len(operations)
    assert {"401" in each["responses"] for each in operations if "security" not in each} == {secured}


def test_examples_fit_their_schemas() -> None:
    found = document(cards(*(card(task, has_chat=True) for task in FORMS)))
    num = 0
    for path in found["paths"].values():
        for operation in path.values():
            bodies = [operation.get("requestBody", {}), operation["responses"]["200"]]
            for body in (each for every in bodies for each in every.get("content", {}).values() if "example" in each):
                jsonschema.validate(body["example"], {**body["schema"], "components": found["components"]})
                num += 1
    assert num >= 2 * len(FORMS)


def test_models_have_the_routes_that_they_can_answer() -> None:
    found = document(
        cards(card("text-generation", "plain"), card("text-generation", "talks", has_chat=True, adapters=("pirate",)))
    )
    paths = found["paths"].keys()
    assert {"/models/talks/v1/chat/completions", "/models/plain/v1/completions", "/v1/chat/completions"} <= paths
    assert not paths & {"/models/plain/v1/chat/completions", "/v1/embeddings", "/v1/rerank"}
    chat = resolved(found, "/v1/chat/completions")
    body: dict[str, Any] = {"model": "talks:pirate", "messages": [{"role": "user", "content": "x"}]}
    jsonschema.validate(body, chat)
    for wrong in ({"model": "plain"}, {"n": 9}, {"stop": ["a"] * 5}, {"messages": []}, {"max_tokens": "5"}, {"x": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**body, **wrong}, chat)


def test_images_and_streams_have_their_types() -> None:
    found = document(cards(card("image-classification"), card("text-generation")))
    content = found["paths"]["/models/image-classification"]["post"]["requestBody"]["content"]
    assert {"application/json", "image/png", "image/jpeg"} <= content.keys()
    answers = found["paths"]["/models/text-generation"]["post"]["responses"]["200"]["content"]
    assert answers.keys() == {"application/json", "text/event-stream"}


def test_it_is_made_anew_only_when_models_change() -> None:
    documents, first = Documents(), cards(card("text-classification"))
    made = documents.get(first, secured=False)
    assert documents.get(dict(first), secured=False) is made
    changed = {name: replace(each, labels=("a",), max_length=128) for name, each in first.items()}
    assert "128 tokens" in documents.get(changed, secured=False).decode()
    for number in range(2 * MAX_KEPT):
        documents.get(cards(card("fill-mask", f"m{number}")), secured=False)
    assert len(documents._kept) == MAX_KEPT


def test_a_key_sees_the_models_that_it_may_ask(tmp_path: Path) -> None:
    path, texts = make_keys(tmp_path, alice={"models": ["mine"]}, bob={})
    lanes = {
        name: SimpleNamespace(card=card("text-classification", name), num_replicas=1) for name in ("mine", "other")
    }
    directory: Any = SimpleNamespace(lanes=lanes, known=True, unready=list)
    spec = GatewaySpec()
    app: Any = make_app(Front(directory, spec), KeyRing.load(path))
    with run_front(KeyRing.load(path), texts["alice"], app) as front:
        front.ask("GET", "/openapi.json", key=None).assert_error(401)
        seen = front.ask("GET", "/openapi.json")
        assert seen.status == 200
        assert "other" not in json.dumps(seen.json["paths"])
        assert "/models/other" in front.ask("GET", "/openapi.json", key=texts["bob"]).json["paths"]
