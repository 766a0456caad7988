"""`hfray deploy` against a cluster with token authentication, as `ray start --head` brings it up."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
import yaml

from tests.models.support import save_model
from tests.promises.endpoints import free_port
from tests.promises.head import Head, head


@pytest.fixture
def file(tmp_path: Path) -> Path:
    model = {"model": {"path": str(save_model(tmp_path / "weather"))}, "task": "text-classification"}
    port = free_port()
    apps = [
        {"name": "gateway", "import_path": "hfray.serving.app:gateway", "args": {"port": port}},
        {"name": "weather", "import_path": "hfray.serving.app:model", "route_prefix": None, "args": model},
    ]
    path = tmp_path / "endpoints.yaml"
    path.write_text(yaml.safe_dump({"proxy_location": "Disabled", "applications": apps}))
    return path


@pytest.mark.chaos
def test_with_the_clusters_token_and_without(file: Path, faults: Path, tmp_path: Path) -> None:
    strange = tmp_path / "strange"
    strange.write_text("b" * 64)
    with head(tmp_path, faults) as each:
        for wrong in (tmp_path / "nowhere", strange):
            told = each.hfray("deploy", str(file), code=2, RAY_AUTH_TOKEN_PATH=str(wrong))
            assert "asks for a token" in told
        told = each.hfray("deploy", str(file), "--wait", "180")
        assert "ready   weather" in told
        port = yaml.safe_load(file.read_text())["applications"][0]["args"]["port"]
        answer = httpx.post(f"http://127.0.0.1:{port}/models/weather", json={"inputs": "so warm"}, timeout=30)
        assert answer.status_code == 200


@pytest.mark.slow
def test_an_address_where_nothing_answers(file: Path, tmp_path: Path) -> None:
    nowhere = Head(f"http://127.0.0.1:{free_port()}", tmp_path / "token", tmp_path)
    told = nowhere.hfray("deploy", str(file), code=2)
    assert "no Ray dashboard answers there" in told
    assert "mistake in hfray" not in told
