"""Requests made from the gateway's own OpenAPI document, right ones and wrong ones, on a live port: promise R13. None
makes it ask anybody else: threat T12."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx
import hypothesis
import jsonschema
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from PIL import Image
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from hfray.tasks.images import FORMATS
from tests.serving.site import Site
from tests.serving.watch import canary, watching

MAX_ANSWER_S = 5.0
MANY = 25_000
"""A thousand of each operation that takes a body, and more."""
SEED = int(os.environ.get("HFRAY_FUZZ_SEED", "20260101"))
CHECKS = [
    not_a_server_error,
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]
SENTENCE = {"inputs": "a warm day"}
ADDRESSES = ("http://{host}/x.png", "//{host}/x", "see https://{host}/?a=b#c", "file://{host}/etc/passwd")


def _image(kind: str, size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(file, kind)
    return file.getvalue()


def _damaged(data: bytes, cuts: tuple[int, int, int]) -> bytes:
    start, length, byte = cuts
    start %= len(data)
    return data[:start] + bytes([byte]) * (length % 9) + data[start + length % 9 :]


IMAGES = st.one_of(
    st.sampled_from([_image(kind, size) for kind in FORMATS for size in ((1, 1), (7, 90), (64, 64))]),
    st.builds(
        _damaged, st.sampled_from([_image(kind, (9, 9)) for kind in FORMATS]), st.tuples(*[st.integers(0, 255)] * 3)
    ),
    st.binary(max_size=200),
)
for _type in (*(f"image/{kind.lower()}" for kind in FORMATS), "application/octet-stream"):
    schemathesis.openapi.media_type(_type, IMAGES)


def is_of_a_stream(document: dict[str, Any], case: Any, text: str) -> None:
    """Every event fits the operation's schema of events, or is an error; the last is an error or [DONE]."""
    content = document["paths"][case.operation.path]["post"]["responses"]["200"]["content"]["text/event-stream"]
    schema = {**content["x-item-schema"], "components": document["components"]}
    events = text.split("\n\n")
    assert events.pop() == ""
    values = [each.removeprefix("data: ") for each in events]
    if values[-1] == "[DONE]":
        values.pop()
    else:
        assert "error" in json.loads(values.pop())
    for value in values:
        jsonschema.validate(json.loads(value), schema)


def _words(schema: Any) -> set[str]:
    """What a document lets a text be and nothing else: names of models, kinds of parts."""
    if isinstance(schema, dict):
        own = {each for each in (*schema.get("enum", ()), schema.get("const")) if isinstance(each, str)}
        return own.union(*map(_words, schema.values()))
    return set().union(*map(_words, schema)) if isinstance(schema, list) else set()


def _planted(value: Any, address: str, words: set[str]) -> Any:
    """A body with the address in the place of every text that is free."""
    if isinstance(value, dict):
        return {key: _planted(each, address, words) for key, each in value.items()}
    if isinstance(value, list):
        return [_planted(each, address, words) for each in value]
    return address if isinstance(value, str) and value not in words else value


def fuzz(url: str, num_cases: int, addresses: Sequence[str] = ()) -> Counter[tuple[str, int]]:
    """About as many cases, shared out over the operations; their numbers by mode and status.

    addresses: the texts of every fourth right body are one of these.
    """
    document = httpx.get(f"{url}/openapi.json").json()
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    seen: Counter[tuple[str, int]] = Counter()
    operations = [each.ok() for each in schema.get_all_operations()]
    asking = [each for each in operations if each.method == "post"]
    few = 5
    num_cases += num_cases // 20  # where an operation has few different requests, no more of them are made
    each_s = (num_cases - few * (len(operations) - len(asking))) // (2 * len(asking)) + 1
    session, words = requests.Session(), _words(document)
    for operation in operations:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            if operation not in asking and mode is GenerationMode.NEGATIVE and not operation.path_parameters:
                continue
            num = each_s if operation in asking else few
            # In a wrong body a text in the place of a wrong one might be right.
            planted = partial(_planted, words=words), addresses if mode is GenerationMode.POSITIVE else ()
            _fuzz_one(document, session, operation, mode, num, seen, *planted)
    return seen


def _fuzz_one(
    document: dict[str, Any],
    session: requests.Session,
    operation: Any,
    mode: GenerationMode,
    num: int,
    seen: Any,
    plant: Callable[[Any, str], Any],
    addresses: Sequence[str],
) -> None:
    strategy = operation.as_strategy(generation_mode=mode)
    planted = st.sampled_from([*addresses, *[None] * max(1, 3 * len(addresses))])

    @hypothesis.seed(SEED)
    @hypothesis.settings(
        max_examples=num,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @hypothesis.given(strategy, planted)
    def ask(case: Any, address: str | None) -> None:
        if address is not None:
            case.body = plant(case.body, address)
        begun = time.monotonic()
        response = case.call(session=session)
        took_s = time.monotonic() - begun
        seen[(mode.value, response.status_code)] += 1
        assert took_s < MAX_ANSWER_S, f"{case.as_curl_command()} took {took_s:.1f} s"
        if response.headers["content-type"][0].startswith("text/event-stream"):
            is_of_a_stream(document, case, response.content.decode())
        else:
            raw = case.media_type is not None and not case.media_type.startswith("application/json")
            # Bytes of an image break no schema: Schemathesis calls them wrong all the same where it was to make one.
            checks = [each for each in CHECKS if each is not negative_data_rejection] if raw else CHECKS
            case.validate_response(response, checks=checks)

    begun = time.monotonic()
    ask()
    if os.environ.get("HFRAY_FUZZ_TIMES"):
        print(operation.method, operation.path, mode.value, num, round(time.monotonic() - begun, 1), file=sys.stderr)


def still_well(url: str, before: Any) -> None:
    assert httpx.get(f"{url}/healthz").status_code == 200
    assert httpx.get(f"{url}/readyz").status_code == 200
    assert httpx.post(f"{url}/models/text-classification", json=SENTENCE).json() == before


def test_addresses_stand_where_texts_are_free() -> None:
    document = {"a": {"enum": ["user", 1]}, "b": [{"const": "text"}, {"type": "string", "enum": [None]}]}
    words = _words(document)
    assert words == {"user", "text"}
    body = {"role": "user", "content": [{"type": "text", "text": "hi"}, "hi", 1, None], "n": 2}
    assert _planted(body, "//x", words) == {
        "role": "user",
        "content": [{"type": "text", "text": "//x"}, "//x", 1, None],
        "n": 2,
    }


def test_whoever_is_asked_is_seen() -> None:
    with canary() as (host, hits):
        with watching() as seen:
            httpx.get(f"http://{host}/asked")
            with pytest.raises(httpx.ConnectError):
                httpx.get("http://no-such-host.invalid:81/")
        httpx.get(f"http://{host}/later")
    assert hits == ["/asked", "/later"]
    assert {address for _, address in seen.asked} == {host, "no-such-host.invalid:81"}
    assert ("socket.connect", host) in seen.asked


@pytest.mark.slow
@pytest.mark.parametrize(
    "num_cases", [2_000, pytest.param(MANY, marks=pytest.mark.chaos)], ids=["2,000 cases", "25,000 cases"]
)
def test_any_request_gets_a_well_formed_answer(site: Site, num_cases: int, capsys: pytest.CaptureFixture[str]) -> None:
    url = site.url
    before = httpx.post(f"{url}/models/text-classification", json=SENTENCE).json()
    with canary() as (host, hits), watching() as watched:
        addresses = [form.format(host=host) for form in ADDRESSES]
        seen = fuzz(url, num_cases, addresses)
    assert hits == []
    assert {address for _, address in watched.asked} == {urlsplit(url).netloc}, "somebody else was asked"
    still_well(url, before)
    with capsys.disabled():
        print(f"\nfuzz: {seen.total():,} cases, seed {SEED}: {dict(sorted(seen.items()))}")
    assert seen.total() >= num_cases
