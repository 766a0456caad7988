"""Who gets into the playground, what exists there, and that a key's rights hold inside."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from hfray.errors import SpecError
from hfray.serving.keys import KeyRing
from hfray.serving.playground.door import COOKIE, PREFIX, SESSION_S, Sessions
from hfray.serving.routes import make_app
from hfray.spec.endpoint import GatewaySpec
from tests.models.support import save_model
from tests.serving.front import make_keys
from tests.serving.limits import Clock
from tests.serving.office import front_of, replica_of, served

pytest.importorskip("gradio", reason="the playground needs the extra `ui`")
PAGE = "gradio_config"
"""Stands in the page of Gradio, and not in the login form."""


class Visitor:
    """A client that does what the page's own code does."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=f"{url}{PREFIX}", timeout=30, trust_env=False)

    def log_in(self, key: str) -> bool:
        self.http.post("/login", data={"key": key}, follow_redirects=True)
        return PAGE in self.http.get("/").text

    def raw(self, path: str, *, num_bytes: int | None = None) -> tuple[int, bytes]:
        """A path as it stands: httpx would resolve the dots in it. num_bytes: announces a body, and sends none."""
        address = self.http.base_url
        with closing(http.client.HTTPConnection(address.host, address.port, timeout=30)) as connection:
            cookie = "; ".join(f"{name}={value}" for name, value in self.http.cookies.items())
            connection.putrequest("GET" if num_bytes is None else "POST", path)
            connection.putheader("cookie", cookie)
            if num_bytes is not None:
                connection.putheader("content-length", str(num_bytes))
            connection.endheaders()
            reply = connection.getresponse()
            return reply.status, reply.read()

    def play(self, model: str, text: str, **fields: Any) -> str:
        """Runs the page's own Run; what it then shows."""
        config = self.http.get("/config").json()
        run = max(config["dependencies"], key=lambda each: len(each["inputs"]))
        names = ("second", "labels", "source", "target", "image")
        data = [model, text, *(fields.get(name, "") for name in names), 5, 0.0, 1.0, None]
        body = {"data": data, "fn_index": run["id"], "session_hash": "visitor1", "event_data": None, "trigger_id": None}
        join = self.http.post("/gradio_api/queue/join", json=body)
        if join.status_code != 200:
            return join.text
        shown = ""
        with self.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": "visitor1"}) as stream:
            for line in stream.iter_lines():
                shown += line
                if "process_completed" in line:
                    break
        return shown


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    return make_keys(tmp_path_factory.mktemp("keys"), alice={}, bob={"models": ("other",)}, carol={"disabled": True})


@pytest.fixture(scope="module")
def url(keys: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    models = {"sentiment": replica_of(save_model(tmp_path_factory.mktemp("m") / "s"), "text-classification")}
    with served(front_of(models, playground=True), KeyRing.load(keys[0])) as address:
        yield address
    for replica, _ in models.values():
        replica.close()


@pytest.fixture
def visitor(url: str) -> Iterator[Visitor]:
    found = Visitor(url)
    with found.http:
        yield found


def test_without_a_session_there_is_a_login_form_and_nothing_else(visitor: Visitor) -> None:
    form = visitor.http.get("/")
    assert form.status_code == 200
    assert "API key" in form.text
    assert PAGE not in form.text
    for method, path in (
        ("GET", "/config"),
        ("GET", "/theme.css"),
        ("GET", "/gradio_api/heartbeat/x"),
        ("GET", "/gradio_api/queue/data?session_hash=x"),
        ("POST", "/gradio_api/queue/join"),
        ("POST", "/gradio_api/cancel"),
        ("POST", "/gradio_api/upload"),
        ("DELETE", "/"),
    ):
        assert visitor.http.request(method, path).status_code == 401, path


def test_the_door_opens_nothing_beside_it(visitor: Visitor, url: str) -> None:
    with httpx.Client(base_url=url, trust_env=False) as http:
        for path in ("/v1/models", "/models/sentiment", "/playgrounds", "/playgroundx/", "/Playground/", "/"):
            assert http.get(path).status_code == 401, path
        for path in (f"{PREFIX}/../v1/models", f"{PREFIX}/%2e%2e/v1/models", f"{PREFIX}//v1/models"):
            assert visitor.raw(path)[0] == 401, path


@pytest.mark.parametrize("key", ["", "hfray-wrong", "carol"])
def test_a_key_that_is_none_or_disabled_is_refused(
    visitor: Visitor, keys: tuple[Path, dict[str, str]], key: str
) -> None:
    assert not visitor.log_in(keys[1].get(key, key))
    assert COOKIE not in visitor.http.cookies
    assert "no valid key" in visitor.http.get("/?refused").text


def test_a_session_asks_with_its_keys_rights(visitor: Visitor, url: str, keys: tuple[Path, dict[str, str]]) -> None:
    assert visitor.log_in(keys[1]["alice"])
    assert "hf-bars" in visitor.play("sentiment", "so warm")
    assert visitor.http.get("/logout", follow_redirects=True).status_code == 200
    assert PAGE not in visitor.http.get("/").text
    assert visitor.log_in(keys[1]["bob"])
    shown = visitor.play("sentiment", "so warm")
    assert "there is no such model here" in shown
    assert "hf-bars" not in shown


def test_the_cookie_is_of_no_use_elsewhere(visitor: Visitor, keys: tuple[Path, dict[str, str]]) -> None:
    reply = visitor.http.post("/login", data={"key": keys[1]["alice"]})
    cookie = reply.headers["set-cookie"].lower()
    assert all(word in cookie for word in ("httponly", "samesite=strict", f"path={PREFIX}"))
    assert keys[1]["alice"] not in cookie
    page = visitor.http.get("/")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    refused = visitor.http.post("/gradio_api/queue/join", json={}, headers={"origin": "http://elsewhere.example"})
    assert refused.status_code == 403


def test_gradios_other_routes_and_all_files_are_not_there(
    visitor: Visitor, keys: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    assert visitor.log_in(keys[1]["alice"])
    secret = tmp_path / "secret.txt"
    secret.write_text("a secret")
    for path in (
        f"/gradio_api/file={secret}",
        f"/gradio_api/file/{secret}",
        f"/file={secret}",
        "/gradio_api/file=http://127.0.0.1:1/",
        "/gradio_api/proxy=http://127.0.0.1:1/",
        "/gradio_api/info",
        "/gradio_api/openapi.json",
        "/gradio_api/stream/x/1/1/playlist.m3u8",
        "/gradio_api/deep_link",
        "/monitoring",
        f"/static/../../../../../../../..{secret}",
        f"/assets/%2e%2e/%2e%2e/%2e%2e{secret}",
        f"/static//{secret}",
        "/assets/..%5c..%5cgradio",
    ):
        status, body = visitor.raw(f"{PREFIX}{path}")
        assert status == 404, path
        assert b"a secret" not in body
    for path in (
        "upload",
        "run/x",
        "api/x",
        "call/x",
        "call/v2/x",
        "component_server",
        "vibe-edit",
        "process_recording",
    ):
        files = {"files": ("x.png", b"x")} if path == "upload" else None
        assert visitor.http.post(f"/gradio_api/{path}", files=files).status_code == 404, path
    assert visitor.http.get("/static/js/iframeResizer.contentWindow.min.js").status_code == 200


def test_what_is_sent_is_no_larger_than_a_request_may_be(visitor: Visitor, keys: tuple[Path, dict[str, str]]) -> None:
    assert visitor.log_in(keys[1]["alice"])
    limit = (1 << 20) + (64 << 10)
    for path, size in (("/gradio_api/queue/join", limit + 1), ("/gradio_api/cancel", (64 << 10) + 1)):
        assert visitor.raw(f"{PREFIX}{path}", num_bytes=size)[0] == 413, path
    assert "may have" in visitor.play("sentiment", "x" * 200_001)  # the model's own limit, in the API's words


def test_a_page_that_asks_for_no_address(visitor: Visitor, keys: tuple[Path, dict[str, str]]) -> None:
    assert visitor.log_in(keys[1]["alice"])
    page = visitor.http.get("/").text
    config = visitor.http.get("/config").json()
    assert "og:image" not in page
    assert "manifest.json" not in page
    assert config["analytics_enabled"] is False
    assert not [each for each in config["components"] if each["type"] in ("file", "image", "uploadbutton", "video")]


def test_sessions_end_with_their_key_and_their_time(tmp_path: Path) -> None:
    path, texts = make_keys(tmp_path, alice={}, bob={})
    clock = Clock()
    ring = KeyRing.load(path)
    sessions = Sessions(ring, clock)
    alice, bob = sessions.begin(texts["alice"]), sessions.begin(texts["bob"])
    assert alice is not None
    assert bob is not None
    assert sessions.key(alice).id == "alice"  # type: ignore[union-attr]
    assert sessions.key("") is None
    sessions.end(alice)
    assert sessions.key(alice) is None
    clock.now += SESSION_S + 1
    assert sessions.key(bob) is None


def test_a_session_of_a_key_that_was_replaced_is_over(tmp_path: Path) -> None:
    path, texts = make_keys(tmp_path, alice={})
    sessions = Sessions(KeyRing.load(path))
    token = sessions.begin(texts["alice"])
    make_keys(tmp_path, alice={})
    sessions._ring = KeyRing.load(path)
    assert token is not None
    assert sessions.key(token) is None


def test_without_gradio_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(SpecError, match=r"pip install 'hfray\[ui\]'"):
        make_app(front_of({}, playground=True))


def test_without_the_playground_there_is_no_such_path() -> None:
    with served(front_of({})) as address, httpx.Client(base_url=address, trust_env=False) as http:
        assert http.get(f"{PREFIX}/").status_code == 404


def test_one_gateway_alone_has_a_playground() -> None:
    with pytest.raises(ValueError, match="playground"):
        GatewaySpec(playground=True, replicas=2)
