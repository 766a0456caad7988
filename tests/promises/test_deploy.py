"""`hfray deploy` and `serve deploy` against a cluster with token authentication, as `ray start --head` brings it up."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import yaml

from tests.models.support import save_model
from tests.promises.endpoints import add_key, free_port
from tests.promises.head import SECRET, Head, head, wait_for

PLANTED = "zebra-in-the-snow"
TOLD = (
    "/api/serve/applications/", "/api/jobs/", "/api/v0/actors?detail=1", "/api/v0/tasks?detail=1",
    "/api/v0/workers?detail=1", "/api/v0/runtime_envs?detail=1", "/logical/actors", "/nodes?view=summary",
)  # fmt: skip
"""All that Ray's dashboard says of what runs on the cluster."""


@pytest.fixture
def key(tmp_path: Path) -> str:
    """Of the one who may ask; its file is `keys.yaml` in the folder of the test."""
    return add_key(tmp_path / "keys.yaml", "somebody")


@pytest.fixture
def file(tmp_path: Path, key: str) -> Path:
    model = {"model": {"path": str(save_model(tmp_path / "weather"))}, "task": "text-classification"}
    port, keys = free_port(), str(tmp_path / "keys.yaml")
    apps = [
        {"name": "gateway", "import_path": "hfray.serving.app:gateway", "args": {"port": port, "keys": keys}},
        {"name": "weather", "import_path": "hfray.serving.app:model", "route_prefix": None, "args": model},
    ]
    path = tmp_path / "endpoints.yaml"
    path.write_text(yaml.safe_dump({"proxy_location": "Disabled", "applications": apps}))
    return path


def ask(file: Path, key: str | None) -> int:
    """The status of one request to what was deployed."""
    port = yaml.safe_load(file.read_text())["applications"][0]["args"]["port"]
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    url, body = f"http://127.0.0.1:{port}/models/weather", {"inputs": PLANTED}
    return httpx.post(url, json=body, timeout=30, headers=headers).status_code


@pytest.mark.slow
def test_with_the_clusters_token_and_without(file: Path, faults: Path, tmp_path: Path, key: str) -> None:
    strange = tmp_path / "strange"
    strange.write_text("b" * 64)
    with head(tmp_path, faults) as each:
        for wrong in (tmp_path / "nowhere", strange):
            told = each.hfray("deploy", str(file), code=2, RAY_AUTH_TOKEN_PATH=str(wrong))
            assert "asks for a token" in told
        told = each.hfray("deploy", str(file), "--wait", "180")
        assert "ready   weather" in told
        assert ask(file, None) == 401
        assert ask(file, key) == 200
        pages = {path: each.page(path) for path in TOLD}
        assert "weather" in pages["/api/serve/applications/"]
        assert "ServeReplica" in pages["/api/v0/actors?detail=1"]
        for path, page in pages.items():
            assert not [secret for secret in (key, SECRET, PLANTED) if secret in page], path


@pytest.mark.slow
def test_ray_serves_own_command(file: Path, faults: Path, tmp_path: Path, key: str) -> None:
    """`serve deploy` takes the file as it is."""
    with head(tmp_path, faults) as each:
        env = {**each.env, "RAY_DASHBOARD_ADDRESS": each.address}
        command = [str(Path(sys.executable).parent / "serve"), "deploy", "--address", each.address, str(file)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr

        def answers() -> bool:
            with suppress(httpx.TransportError):
                return ask(file, key) == 200
            return False

        wait_for(answers)


@pytest.mark.slow
def test_an_address_where_nothing_answers(file: Path, tmp_path: Path) -> None:
    nowhere = Head(f"http://127.0.0.1:{free_port()}", tmp_path / "token", tmp_path)
    told = nowhere.hfray("deploy", str(file), code=2)
    assert "no Ray dashboard answers there" in told
    assert "mistake in hfray" not in told
