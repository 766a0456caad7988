"""The gateway's own routes behind the guard: none is open but those of health, every refusal has a form."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hfray.serving.front import Front
from hfray.serving.guard import OPEN_PATHS
from hfray.serving.keys import KeyRing
from hfray.serving.routes import make_app
from hfray.spec.endpoint import GatewaySpec
from tests.serving.front import make_keys, run_front


def app_without_models(*, ready: bool) -> Any:
    directory: Any = SimpleNamespace(lanes={}, known=ready, unready=list)
    spec = GatewaySpec()
    return make_app(Front(directory, spec))


def test_no_route_is_open_but_health(tmp_path: Path) -> None:
    path, texts = make_keys(tmp_path, alice={})
    app, dice = app_without_models(ready=True)._app, random.Random(3)
    routes = sorted(
        (method, route.path.replace("{name}", "m").replace("{name:path}", "a/b").replace("{route:path}", "embeddings"))
        for route in app.routes  # behind the guard
        for method in route.methods
    )
    assert len(routes) >= 9
    words = [
        "v1",
        "models",
        "healthz",
        "readyz",
        "-",
        "m",
        "chat",
        "completions",
        "docs",
        "openapi.json",
        "..",
        "",
        "%2e",
    ]
    paths = ["/" + "/".join(dice.choices(words, k=dice.randint(1, 5))) for _ in range(500)]
    with run_front(KeyRing.load(path), texts["alice"], app) as front:
        for method, each in [*routes, *((dice.choice(["GET", "POST", "DELETE"]), each) for each in paths)]:
            reply = front.ask(method, each, key=None)
            if each in OPEN_PATHS and method in ("GET", "HEAD"):
                assert reply.status == 200
            elif each.startswith("//"):
                assert reply.status in (400, 401)
            else:
                assert reply.status == 401, (method, each)
        for method, each in routes:
            reply = front.ask(method, each, b"{}" if method == "POST" else None)
            if reply.status != 200 and method != "HEAD":
                reply.assert_error(reply.status)
                assert reply.status < 500
        front.ask("GET", "/docs").assert_error(404)


def test_not_ready_is_a_503_that_says_when() -> None:
    with run_front(None, "", app_without_models(ready=False)) as front:
        reply = front.ask("GET", "/readyz")
        reply.assert_error(503)
        assert reply.headers["retry-after"] == "1"
        assert front.ask("GET", "/healthz").status == 200
