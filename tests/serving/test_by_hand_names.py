"""Names that are paths (threat T17), and addresses that somebody might open (T12)."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

import hfray
from tests.serving.site import OPENAI, Site, openai_body
from tests.serving.watch import canary, watching

pytestmark = pytest.mark.slow


@pytest.fixture
def nobody() -> Iterator[tuple[str, list[str]]]:
    """A server that nobody should ask, and what it was asked."""
    with canary() as found:
        yield found


def test_no_address_is_ever_asked(site: Site, nobody: tuple[str, list[str]], tmp_path: Path) -> None:
    host, hits = nobody
    (tmp_path / "x.png").write_bytes(b"x")
    schemes = (
        "http://",
        "HTTP://",
        "//",
        "https://",
        "ftp://",
        "http:\\\\",
        "http://a@",
        "url:http://",
        " http://",
        "",
    )
    addresses = [f"{scheme}{host}/x.png" for scheme in schemes]
    addresses += [
        f"file://{tmp_path}/x.png",
        f"{tmp_path}/x.png",
        f"data:,http://{host}/",
        f"data:text/uri-list,http://{host}/x",
    ]
    for address in addresses:
        for task in ("image-classification", "zero-shot-image-classification"):
            labels = {"parameters": {"candidate_labels": ["a", address]}} if "zero" in task else {}
            for inputs in (address, [address], {"url": address}, {"image": address}):
                assert site.json(f"/models/{task}", {"inputs": inputs, **labels}).status == 422
            assert site.raw(f"/models/{task}", address.encode(), kind="image/png").status == 422
            assert site.json(f"/models/{task}", {"inputs": "aGk=", "url": address}).status == 422
        parts = [{"type": "image_url", "image_url": {"url": address}}, {"type": "input_image", "image_url": address}]
        parts += [{"type": "image", "image": address}, {"type": "text", "text": "a", "image_url": {"url": address}}]
        for part in parts:
            message = {"role": "user", "content": [part]}
            assert site.json(
                "/v1/chat/completions", {**OPENAI["/v1/chat/completions"], "messages": [message]}
            ).status in (200, 422)
        tools = [{"type": "function", "function": {"name": "f", "url": address}}]
        assert site.json("/v1/chat/completions", {**OPENAI["/v1/chat/completions"], "tools": tools}).status == 422
        for path in OPENAI:
            assert site.json(path, openai_body(path, address)).status in (200, 422)
        assert site.json("/v1/completions", {**OPENAI["/v1/completions"], "model": address}).status == 404
    assert site.sent(f"GET http://{host}/x HTTP/1.1\r\nhost: {host}\r\n\r\n".encode()).status in (400, 404)
    assert hits == []


# -- names


def _names() -> list[str]:
    seeds = [
        "..", "../..", "../../etc/passwd", ".", "...", "....//", "%2e%2e", "%2e%2e%2f", "..%2f", "%252e%252e", "..%5c",
        "..\\", "\\\\host\\share", "//host/share", "C:\\", "c:/x", "/etc/passwd", "%2fetc%2fpasswd", "~", "~root",
        "$HOME",
        "`id`", "$(id)", ";id", "|id", "&", "a b", "a%20b", "%00", "text-generation%00", "text-generation%00.json",
        "text-generation/../x", "text-generation:", ":", "text-generation:..", "text-generation:../x",
        "text-generation:a:b",
        "text-generation:%2e%2e", "TEXT-GENERATION", "text-generation.", "text-generation ", "-", "--", "con", "nul",
        "__proto__", "constructor", "None", "null", "*", "?", "%", "%zz", "%ff", "%c0%ae%c0%ae", "\u2024\u2024",
        "models", "{name}", "{{7*7}}",
        "a" * 64, "a" * 65, "a" * 1000, "a" * 8000, "x" * 20 + "/" * 20, "%0d%0aset-cookie:a",
    ]  # fmt: skip
    return [each + tail for each in seeds for tail in ("", "/", "/config.json", ":x")][:240]


_MODULES = [Path(each).resolve() for each in (*sysconfig.get_paths().values(), Path(hfray.__file__).parent)]
"""Where modules are that are imported when they are first wanted."""


def _no_modules(opened: set[str]) -> list[str]:
    """Paths that a gateway and its models have no reason to open once they run."""
    real = {path: Path(os.path.realpath(path.replace("\0", "NUL"))) for path in opened}
    return sorted(path for path in opened if not any(real[path].is_relative_to(root) for root in _MODULES))


def test_a_file_that_is_opened_is_seen(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    with watching() as seen:
        (tmp_path / "x").read_text()
        os.listdir(tmp_path)
        for path in ("/no/where", "..", b"x\\..\\x"):
            with pytest.raises(OSError, match=r"No such|directory"):
                open(path)  # noqa: SIM115 (it does not open)
        Path(hfray.__file__).read_text()
        Path(os.__file__).read_text()
    (tmp_path / "y").write_text("after it")
    assert _no_modules(seen.opened) == sorted(["..", "/no/where", "x\\..\\x", str(tmp_path), str(tmp_path / "x")])


def test_names_are_looked_up_and_nothing_else(site: Site) -> None:
    names = _names()
    assert len(names) >= 200
    with watching() as seen:
        _ask_for(site, names)
    assert _no_modules(seen.opened) == []
    forms = {form for name in names for form in (name, unquote(name), unquote(unquote(name)))}
    assert forms & seen.opened == set()


def _ask_for(site: Site, names: list[str]) -> None:
    for name in names:
        path = name.encode("utf-8").decode("latin-1").replace(" ", "%20")
        for url in (f"/models/{path}", f"/models/{path}/v1/completions"):
            head = f"POST {url} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n".encode("latin-1")
            assert site.sent(head + b"{}").status in (400, 404, 405, 422), name
        assert site.sent(f"GET /v1/models/{path} HTTP/1.1\r\nhost: x\r\n\r\n".encode("latin-1")).status in (400, 404), (
            name
        )
        if not name.startswith("text-generation") or ":" in name:
            reply = site.json("/v1/completions", {"model": name, "prompt": "a", "max_tokens": 1})
            assert reply.status in (404, 422), name
            body = {"inputs": "a", "parameters": {"adapter_id": name}}
            assert site.json("/models/text-generation", body).status in (404, 422), name
