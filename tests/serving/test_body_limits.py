"""How long a body may be, by the model that its path names: at the limit it is answered, a byte above it refused."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

from hfray.serving.guard import IMAGE_BODY_BYTES, TEXT_BODY_BYTES
from hfray.spec.endpoint import LimitsSpec
from tests.models.support import save_decoder, save_model
from tests.serving.front import WAIT_S, Reply, read_reply
from tests.serving.office import front_of, replica_of, served
from tests.serving.site import OPENAI, Site

pytestmark = pytest.mark.slow

SMALL_BYTES, LARGE_BYTES = 2048, 4096


def picture() -> bytes:
    file = io.BytesIO()
    Image.radial_gradient("L").convert("RGB").resize((48, 40)).save(file, "PNG")
    return file.getvalue()


PICTURE = {"inputs": base64.b64encode(picture()).decode()}
IMAGES: dict[str, dict[str, Any]] = {
    "/models/image-classification": PICTURE,
    "/models/zero-shot-image-classification": {**PICTURE, "parameters": {"candidate_labels": ["a", "b"]}},
}
TEXTS: dict[str, dict[str, Any]] = {
    "/models/text-classification": {"inputs": "a"},
    "/models/text-generation": {"inputs": "a", "parameters": {"max_new_tokens": 1}},
    "/models/text-generation/v1/completions": {"model": "text-generation", "prompt": "a", "max_tokens": 1},
    **{path: {**body, "max_tokens": 1} if "completions" in path else body for path, body in OPENAI.items()},
}
NOBODYS: dict[str, tuple[int, int]] = {
    "/models/text-generation:nobody": (TEXT_BODY_BYTES, 404),
    "/models/image-classification:nobody": (IMAGE_BODY_BYTES, 404),
    "/models/image-classification%3Anobody": (IMAGE_BODY_BYTES, 404),
    "/models/nobody": (TEXT_BODY_BYTES, 404),
    "/models/nobody/v1/completions": (TEXT_BODY_BYTES, 404),
    "/models/image-classification/v1/completions": (TEXT_BODY_BYTES, 422),
    "/v1/nothing": (TEXT_BODY_BYTES, 404),
}
"""Paths that lead to no model, or to one for which the route is not: their limit, and what a body within it gets."""


def padded(body: dict[str, Any], num_bytes: int) -> bytes:
    """The same value in so many bytes."""
    return json.dumps(body).encode().ljust(num_bytes)


def ask(url: str, path: str, body: bytes, *, kind: str = "application/json", chunked: bool = False) -> Reply:
    where = urlsplit(url)
    length = "transfer-encoding: chunked" if chunked else f"content-length: {len(body)}"
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {kind}\r\n{length}\r\n\r\n"
    content = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    with socket.create_connection((where.hostname, where.port), timeout=WAIT_S) as connection:
        connection.sendall(head.encode())
        with contextlib.suppress(ConnectionError):  # refused before all was read
            connection.sendall(content)
        return read_reply(connection)


@pytest.mark.parametrize("path", [*TEXTS, *IMAGES])
@pytest.mark.parametrize("chunked", [False, True])
def test_at_the_limit_and_above(site: Site, path: str, chunked: bool) -> None:
    """1 MiB, and 10 MiB for models of images (threat T16)."""
    most = IMAGE_BODY_BYTES if path in IMAGES else TEXT_BODY_BYTES
    body = {**TEXTS, **IMAGES}[path]
    fits = ask(site.url, path, padded(body, most), chunked=chunked)
    assert fits.status == 200, fits.body
    refused(ask(site.url, path, padded(body, most + 1), chunked=chunked), most)


def refused(reply: Reply, most: int) -> None:
    reply.assert_error(413)
    assert f"{most:,} bytes" in reply.body.decode(), "it says how much may be sent"


def test_an_image_as_the_body(site: Site) -> None:
    """Readers of images take no notice of what comes after one."""
    path = "/models/image-classification"
    fits = ask(site.url, path, picture().ljust(IMAGE_BODY_BYTES, b"\0"), kind="image/png")
    assert fits.status == 200, fits.body
    refused(ask(site.url, path, picture().ljust(IMAGE_BODY_BYTES + 1, b"\0"), kind="image/png"), IMAGE_BODY_BYTES)


@pytest.mark.parametrize("path", NOBODYS)
def test_where_no_model_would_take_it(site: Site, path: str) -> None:
    most, status = NOBODYS[path]
    body = {"model": "image-classification", "inputs": "a", "prompt": "a"}
    if path.endswith("/v1/completions"):
        del body["inputs"]
    ask(site.url, path, padded(body, most)).assert_error(status)
    refused(ask(site.url, path, padded(body, most + 1)), most)


# -- an endpoint's own limit


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two writers and a reader, that differ in what they take."""
    folder: Path = tmp_path_factory.mktemp("models")
    writer, card = replica_of(save_decoder(folder / "writer"), {"name": "text-generation", "max_new_tokens": 1})
    reader, other = replica_of(save_model(folder / "reader"), "text-classification")
    small = replace(card, limits=LimitsSpec(max_body_bytes=SMALL_BYTES))
    large = replace(card, limits=LimitsSpec(max_body_bytes=LARGE_BYTES))
    other = replace(other, limits=LimitsSpec(max_body_bytes=SMALL_BYTES))
    with served(front_of({"small": (writer, small), "large": (writer, large), "reader": (reader, other)})) as address:
        yield address
    writer.close()
    reader.close()


@pytest.mark.parametrize(
    ("path", "body", "most"),
    [
        ("/models/small", {"inputs": "a"}, SMALL_BYTES),
        ("/models/large", {"inputs": "a"}, LARGE_BYTES),
        ("/models/reader", {"inputs": "a"}, SMALL_BYTES),
        ("/models/small/v1/completions", {"model": "small", "prompt": "a"}, SMALL_BYTES),
        ("/models/small/v1/completions", {"model": "large", "prompt": "a"}, SMALL_BYTES),
        ("/models/large/v1/completions", {"model": "small", "prompt": "a"}, LARGE_BYTES),
        ("/v1/completions", {"model": "small", "prompt": "a"}, SMALL_BYTES),
        ("/v1/completions", {"model": "large", "prompt": "a"}, LARGE_BYTES),
    ],
    ids=str,
)
@pytest.mark.parametrize("chunked", [False, True])
def test_an_endpoints_own_limit(url: str, path: str, body: dict[str, Any], most: int, chunked: bool) -> None:
    """Also where the body is what names the model."""
    fits = ask(url, path, padded(body, most), chunked=chunked)
    assert fits.status == 200, fits.body
    refused(ask(url, path, padded(body, most + 1), chunked=chunked), most)
