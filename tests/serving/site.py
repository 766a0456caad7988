"""A gateway with a model of every kind, asked byte by byte."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.models.support import save_decoder
from tests.serving.front import Reply, read_reply
from tests.serving.office import front_of, replica_of, served
from tests.serving.zoo import LIMITS, zoo

MAX_ANSWER_S = 5.0
ENDLESS = (
    "{% if 'loop' in messages[0].content %}"
    "{% for i in range(10**5) %}{% for j in range(10**5) %}{% endfor %}{% endfor %}"
    "{% elif 'range' in messages[0].content %}{% for i in range(10**9) %}{% endfor %}"
    "{% elif 'long' in messages[0].content %}{% for i in range(2000) %}{{ 'a' * 4096 }}{% endfor %}"
    "{% endif %}{{ messages[0].content }}"
)
OPENAI: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "text-generation", "messages": [{"role": "user", "content": "hi"}]},
    "/v1/completions": {"model": "text-generation", "prompt": "once"},
    "/v1/embeddings": {"model": "feature-extraction", "input": "a text"},
    "/v1/rerank": {"model": "text-ranking", "query": "a", "documents": ["a", "b"]},
}


@dataclass
class Site:
    url: str

    def raw(self, path: str, body: bytes, *, kind: str = "application/json") -> Reply:
        """As it is, and within the time; an error has its form, and none is the server's."""
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {kind}\r\n"
        head += f"content-length: {len(body)}\r\n\r\n"
        return self.sent(head.encode("latin-1") + body)

    def sent(self, content: bytes) -> Reply:
        where = urlsplit(self.url)
        begun = time.monotonic()
        with socket.create_connection((where.hostname, where.port), timeout=2 * MAX_ANSWER_S) as connection:
            connection.sendall(content)
            reply = read_reply(connection)
        assert time.monotonic() - begun < MAX_ANSWER_S
        assert reply.status < 500, (reply.status, reply.body)
        if reply.status >= 400:
            reply.assert_error(reply.status)
        return reply

    def json(self, path: str, body: Any) -> Reply:
        return self.raw(path, json.dumps(body).encode())


def openai_body(path: str, text: str) -> dict[str, Any]:
    """A request of a route about a text."""
    found = dict(OPENAI[path])
    if "messages" in found:
        return {**found, "messages": [{"role": "user", "content": text}], "max_tokens": 1}
    name = next(name for name in ("prompt", "input", "query") if name in found)
    return {**found, name: text, **({"max_tokens": 1} if name == "prompt" else {})}


@contextmanager
def open_site(folder: Path) -> Iterator[Site]:
    """The models of the zoo, and `endless`, whose template does not end when it is told so."""
    models = zoo(folder)
    path = save_decoder(folder / "endless", chat_template=ENDLESS)
    models["endless"] = replica_of(path, {"name": "text-generation", "max_new_tokens": 4}, limits=LIMITS)
    try:
        with served(front_of(models)) as address:
            yield Site(address)
            assert httpx.get(f"{address}/healthz").status_code == 200
            assert httpx.post(f"{address}/models/text-classification", json={"inputs": "warm"}).status_code == 200
    finally:
        for replica, _ in models.values():
            replica.close()
