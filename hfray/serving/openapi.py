"""The OpenAPI 3.1 document of a gateway, with its models as they are now. Knows which route has which bodies; what is
in them the protocols' own types say. https://spec.openapis.org/oas/v3.1.1.html"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

import hfray
from hfray.serving import openai_shapes as shapes
from hfray.serving.hf.call import BODIES_WITH_IMAGES
from hfray.serving.hf.forms import FORMS
from hfray.serving.hf.schemas import event_schema, example_input, example_output, input_schema, output_schema
from hfray.serving.messages import Card
from hfray.serving.openai import ROUTES
from hfray.serving.openai_bodies import TASKS_OF, ServedChat
from hfray.serving.openapi_refusals import Form, answer_headers, refusal_components, refusals
from hfray.tasks.images import FORMATS

MAX_KEPT = 32
_ANSWERS: dict[str, tuple[type[BaseModel], type[BaseModel] | None]] = {
    "chat/completions": (shapes.ChatCompletion, shapes.ChatCompletionChunk),
    "completions": (shapes.Completion, shapes.Completion),
    "embeddings": (shapes.EmbeddingList, None),
    "rerank": (shapes.Ranking, None),
}
"""Route to the body of its answer, and to an event of its stream."""
_EXAMPLES: dict[str, dict[str, Any]] = {
    "chat/completions": {"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 20},
    "completions": {"prompt": "Once upon a time", "max_tokens": 20},
    "embeddings": {"input": ["A first text.", "Another one."]},
    "rerank": {"query": "What is a cat?", "documents": ["It rains.", "A small animal."], "top_n": 1},
}
_ASKING = (404, 422, 429, 503)


class Documents:
    """Keeps documents until models change: one for each choice of models that keys may ask."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, ...], tuple[dict[str, Card], bytes]] = {}

    def get(self, cards: Mapping[str, Card], *, secured: bool) -> bytes:
        """`document` as JSON."""
        names = tuple(sorted(cards))
        kept = self._kept.get(names)
        if kept is not None and kept[0] == cards:
            return kept[1]
        made = json.dumps(document(cards, secured=secured), ensure_ascii=False, separators=(",", ":")).encode()
        self._kept.pop(names, None)
        while len(self._kept) >= MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[names] = (dict(cards), made)
        return made


def document(cards: Mapping[str, Card], *, secured: bool = False) -> dict[str, Any]:
    """cards: of the models that the reader may ask, by name. secured: whether a key is needed."""
    paths: dict[str, Any] = {
        "/healthz": _health("healthz", "Whether the gateway answers", {"status": "ok"}),
        "/readyz": _health("readyz", "Whether every model answers", {"status": "ready"}, (503,)),
        "/openapi.json": {"get": _read("openapi", "This document", {"type": "object"}, secured=secured)},
        "/v1/models": {"get": _read("list_models", "The models", _ref(shapes.ModelList), "OpenAI", secured=secured)},
        "/v1/models/{model}": {"get": _one_model(sorted(_all_names(cards)), secured)},
    }
    for route in ROUTES:
        names = _all_names({name: card for name, card in cards.items() if _answers(card, route)})
        if names:
            paths[f"/v1/{route}"] = {"post": _openai(route, _named(route), secured, names[0])}
    for name, card in sorted(cards.items()):
        path = f"/models/{quote(name, safe='')}"
        card_read = _read(f"{name}_card", f"What {name} is", _ref(shapes.ModelCard), statuses=(404,), secured=secured)
        paths[path] = {"get": card_read, "post": _hf(name, card, secured)}
        for route in ROUTES:
            if _answers(card, route):
                paths[f"{path}/v1/{route}"] = {"post": _openai(route, _ref(ROUTES[route]), secured, name, card)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "hfray", "version": hfray.__version__, "description": _ABOUT},
        "paths": paths,
        "components": _components(cards, secured),
        **({"security": [{"key": []}]} if secured else {}),
    }


def _components(cards: Mapping[str, Card], secured: bool) -> dict[str, Any]:
    parts = refusal_components()
    schemas = {**parts["schemas"], **_openai_schemas()}
    for task in sorted({card.task for card in cards.values()}):
        schemas |= _task_schemas(task)
    for route, kind in ROUTES.items():
        names = _all_names({name: card for name, card in cards.items() if _answers(card, route)})
        if names:
            model = {"enum": sorted(names), "description": "Which model; `model:adapter` is one of its adapters."}
            own = schemas[kind.__name__]
            schemas[f"{kind.__name__}OfModel"] = {**own, "properties": {**own["properties"], "model": model}}
    keys = {"key": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer KEY`"}}
    return {**parts, "schemas": schemas, **({"securitySchemes": keys} if secured else {})}


@lru_cache(maxsize=1)
def _openai_schemas() -> dict[str, Any]:
    requests = [(kind, "validation") for kind in ROUTES.values()]
    kinds = {kind for pair in _ANSWERS.values() for kind in pair if kind is not None}
    kinds |= {shapes.ModelList, shapes.Model, shapes.ModelCard}
    answers = [(kind, "validation") for kind in sorted(kinds, key=lambda kind: kind.__name__)]
    _, found = models_json_schema(requests + answers, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    return dict(found["$defs"])


@lru_cache(maxsize=64)
def _task_schemas(task: str) -> dict[str, Any]:
    events = {f"{task}.event": event_schema()} if task == "text-generation" else {}
    return {f"{task}.input": input_schema(task), f"{task}.output": output_schema(task), **events}


# -- operations


def _hf(name: str, card: Card, secured: bool) -> dict[str, Any]:
    content: dict[str, Any] = {
        "application/json": {"schema": _schema(f"{card.task}.input"), "example": example_input(card.task)}
    }
    if FORMS[card.task].takes_image:
        content |= {f"image/{format.lower()}": {"schema": {}} for format in FORMATS}
        content["application/octet-stream"] = {"schema": {}}
    streamed = f"{card.task}.event" if card.task == "text-generation" else None
    return {
        "operationId": name,
        "tags": [name],
        "summary": f"{card.task} with {name}",
        "description": f"The Hugging Face Inference protocol. {_bounds(card)}",
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": _ok(_schema(f"{card.task}.output"), example=example_output(card.task), event=streamed),
            **refusals("HF", (*_ASKING, 415), secured=secured),
        },
    }


def _openai(route: str, body: Mapping[str, Any], secured: bool, model: str, card: Card | None = None) -> dict[str, Any]:
    """card: of the one model of a route below its name."""
    answer, event = _ANSWERS[route]
    verb = route.replace("/", "_")
    return {
        "operationId": verb if card is None else f"{model}_{verb}",
        "tags": ["openai" if card is None else model],
        "summary": f"OpenAI's /v1/{route}" + ("" if card is None else f" with {model}"),
        "description": _bounds(card) if card is not None else "The limits of the model count.",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": body, "example": {"model": model, **_EXAMPLES[route]}}},
        },
        "responses": {
            "200": _ok(_ref(answer), event=None if event is None else event.__name__),
            **refusals("OpenAI", _ASKING, secured=secured),
        },
    }


def _one_model(names: list[str], secured: bool) -> dict[str, Any]:
    found = _read("get_model", "One model", _ref(shapes.Model), "OpenAI", statuses=(404,), secured=secured)
    schema = {"type": "string", **({"enum": names} if names else {})}
    return {**found, "parameters": [{"name": "model", "in": "path", "required": True, "schema": schema}]}


def _health(name: str, summary: str, body: Any, statuses: Iterable[int] = ()) -> dict[str, Any]:
    found = _read(name, summary, {"const": body}, statuses=statuses, secured=False)
    return {"get": {**found, "security": []}}


def _read(
    name: str,
    summary: str,
    schema: Mapping[str, Any],
    form: Form = "HF",
    *,
    statuses: Iterable[int] = (),
    secured: bool,
) -> dict[str, Any]:
    responses = {"200": _ok(schema), **refusals(form, statuses, secured=secured)}
    return {"operationId": name, "summary": summary, "responses": responses}


def _ok(schema: Mapping[str, Any], *, example: Any = None, event: str | None = None) -> dict[str, Any]:
    """event: the schema of a stream's events, where there can be one."""
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if example is not None:
        content["application/json"]["example"] = example
    if event is not None:
        # OpenAPI 3.1 has no word for the events of a stream; `itemSchema` is that of 3.2.
        content["text/event-stream"] = {"schema": {"type": "string"}, "x-item-schema": _schema(event)}
    return {"description": "The answer.", "headers": answer_headers(), "content": content}


# -- helpers


def _answers(card: Card, route: str) -> bool:
    kind = ROUTES[route]
    return card.task == TASKS_OF[kind] and (kind is not ServedChat or card.has_chat)


def _all_names(cards: Mapping[str, Card]) -> list[str]:
    """Of models, and of their adapters as models."""
    return [
        name if adapter is None else f"{name}:{adapter}"
        for name, card in sorted(cards.items())
        for adapter in (None, *card.adapters)
    ]


def _named(route: str) -> dict[str, Any]:
    return _schema(f"{ROUTES[route].__name__}OfModel")


def _ref(kind: type[BaseModel]) -> dict[str, Any]:
    return _schema(kind.__name__)


def _schema(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _bounds(card: Card) -> str:
    limits = card.limits
    said = f"At most {limits.max_inputs:,} inputs of {limits.max_chars:,} characters each in"
    times = BODIES_WITH_IMAGES if FORMS[card.task].takes_image else 1
    said += f" {times * limits.max_body_bytes:,} bytes; an answer within {limits.timeout_s:g} s."
    if card.max_length is not None:
        said += f" The model reads {card.max_length:,} tokens at once."
    if card.task == "text-generation":
        one, all_texts = limits.max_new_tokens, limits.max_total_tokens
        said += f" At most {one:,} new tokens for a text, {all_texts:,} for a request."
    return said


_ABOUT = (
    "Models behind the Hugging Face Inference protocol (/models/NAME) and OpenAI's API (/v1, also below each model). "
    "In a stream each `data:` line is one event of x-item-schema, or an error body; `[DONE]` ends it."
)
