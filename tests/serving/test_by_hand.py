"""Bodies and values that no schema leads to: promise R13's cases by hand, on every route. What the guard and the wire
alone refuse is in their own tests."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from hfray.serving.hf.forms import FORMS
from hfray.serving.hf.schemas import example_input
from tests.serving.front import read_reply
from tests.serving.site import MAX_ANSWER_S, OPENAI, Site, openai_body
from tests.serving.zoo import LIMITS

pytestmark = pytest.mark.slow

TASKS = sorted(FORMS.keys() - {"translation"})


BODIES: dict[str, bytes] = {
    "nested 10,000 deep": b'{"inputs":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "nested 63 deep": b'{"inputs":' + b"[" * 62 + b"]" * 62 + b"}",
    "objects 10,000 deep": b'{"inputs":' * 10_000 + b"1" + b"}" * 10_000,
    "1e400": b'{"inputs": "a", "parameters": {"top_k": 1e400}}',
    "-1e400": b'{"inputs": "a", "parameters": {"temperature": -1e400}}',
    "5,000 digits": b'{"inputs": "a", "parameters": {"top_k": ' + b"9" * 5000 + b"}}",
    "20 digits": b'{"inputs": "a", "parameters": {"top_k": 99999999999999999999}}',
    "a key twice": b'{"inputs": "a", "inputs": "b"}',
    "a key twice, escaped": b'{"inputs": "a", "\\u0069nputs": "b"}',
    "NaN": b'{"inputs": "a", "parameters": {"top_k": NaN}}',
    "half a pair": b'{"inputs": "\\ud800"}',
    "half a pair in a key": b'{"inputs": "a", "\\udc00": 1}',
    "a pair the wrong way round": b'{"inputs": "\\udc00\\ud800"}',
    "NUL": b'{"inputs": "a\\u0000b"}',
    "NUL as it is": b'{"inputs": "a\x00b"}',
    "no UTF-8": b'{"inputs": "\xff\xfe"}',
    "UTF-16": '{"inputs": "a"}'.encode("utf-16"),
    "nothing": b"",
    "null": b"null",
    "a text": b'"inputs"',
    "a list": b"[]",
    "an empty object": b"{}",
    "two values": b'{"inputs": "a"}{}',
    "a trailing comma": b'{"inputs": "a",}',
    "prototype pollution": b'{"inputs": "a", "__proto__": {"x": 1}, "constructor": 1}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_bodies_are_refused_on_every_route(site: Site, body: bytes) -> None:
    for path in (*(f"/models/{task}" for task in TASKS), *OPENAI):
        assert site.raw(path, body).status in (400, 422), path


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/xml", "multipart/form-data; boundary=x", "image/png; x", ""]
)
def test_another_type_is_no_way_around(site: Site, kind: str) -> None:
    for path in ("/models/text-classification", "/models/image-classification", "/v1/completions"):
        assert site.raw(path, b"--x\r\n\r\n", kind=kind).status in (400, 415, 422)


def test_odd_texts_are_answered_or_refused(site: Site) -> None:
    for text in (
        "",
        " ",
        "\n\t",
        "\u200b",
        "\u202e" * 50,
        "\ufffe",
        "👩‍👩‍👧" * 100,
        "e\u0301" * 500,
        "[MASK]" * 9,
        "[PAD][CLS][SEP]",
    ):
        for task in TASKS:
            body = short_input(task)
            _fill(body, text)
            assert site.json(f"/models/{task}", body).status in (200, 422), (task, text)
        for path in OPENAI:
            assert site.json(path, openai_body(path, text)).status in (200, 422), (path, text)


@pytest.mark.parametrize("num_chars", [LIMITS["max_chars"], LIMITS["max_chars"] + 1, 900_000])
def test_texts_have_a_limit(site: Site, num_chars: int) -> None:
    fits = num_chars <= LIMITS["max_chars"]
    for text in ("a " * (num_chars // 2) + "a" * (num_chars % 2), "a" * num_chars):
        reply = site.json("/models/text-classification", {"inputs": text})
        assert (reply.status == 200) == fits
        reply = site.json("/v1/embeddings", {"model": "feature-extraction", "input": text})
        assert (reply.status == 200) == fits, reply.body


def test_two_megabytes_are_too_many(site: Site) -> None:
    for path, body in (
        ("/models/text-classification", {"inputs": "a" * (2 << 20)}),
        ("/v1/completions", openai_body("/v1/completions", "a" * (2 << 20))),
    ):
        where = urlsplit(site.url)
        with socket.create_connection((where.hostname, where.port), timeout=MAX_ANSWER_S) as connection:
            data = json.dumps(body).encode()
            connection.sendall(f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(data)}\r\n\r\n".encode())
            read_reply(connection).assert_error(413)


# -- types


WRONG: tuple[Any, ...] = (None, True, -1, 1.5, "a", [], [None], {"a": 1}, [1], 2**62)


@pytest.mark.parametrize("task", TASKS)
def test_wrong_types_in_every_field(site: Site, task: str) -> None:
    kind = FORMS[task].body
    parameters = kind.model_fields.get("parameters")
    names = [(name,) for name in kind.model_fields]
    if parameters is not None:
        names += [("parameters", name) for name in _properties(kind)]
    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(lambda case: _with_wrong(site, task, *case), [(n, v) for n in names for v in WRONG]))
    assert set(statuses) <= {200, 404, 422}  # 404: an adapter that is not there
    assert statuses.count(422) > len(names) * 2


@pytest.mark.parametrize("path", OPENAI)
def test_wrong_types_in_every_field_of_openai(site: Site, path: str) -> None:
    schema = httpx.get(f"{site.url}/openapi.json").json()
    ref = schema["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    names = list(schema["components"]["schemas"][ref.rpartition("/")[2]]["properties"])
    num_refused = 0
    for name in names:
        for value in WRONG:
            reply = site.json(
                path,
                {**OPENAI[path], "max_tokens": 2, name: value}
                if "completions" in path
                else {**OPENAI[path], name: value},
            )
            num_refused += reply.status in (404, 422)
            assert reply.status in (200, 404, 422), (name, value, reply.body)
    assert num_refused > len(names)


# -- helpers


def short_input(task: str) -> Any:
    """The example, with few tokens to write."""
    found = example_input(task)
    if task in ("text-generation", "summarization", "text2text-generation"):
        found["parameters"] = {"max_new_tokens": 2}
    return found


def _properties(kind: Any) -> list[str]:
    schema = kind.model_json_schema()
    return next(
        (list(each["properties"]) for name, each in schema.get("$defs", {}).items() if "Parameters" in name), []
    )


def _with_wrong(site: Site, task: str, where: tuple[str, ...], value: Any) -> int:
    body: Any = short_input(task)
    target = body
    for name in where[:-1]:
        target = target.setdefault(name, {})
    target[where[-1]] = value
    return site.json(f"/models/{task}", body).status


def _fill(body: Any, text: str) -> None:
    """Another text in the place of the example's."""
    inputs = body.get("inputs")
    if isinstance(inputs, str):
        body["inputs"] = text
    elif isinstance(inputs, dict):
        inputs[next(iter(inputs))] = text
    else:
        body["query" if "query" in body else "inputs"] = text
