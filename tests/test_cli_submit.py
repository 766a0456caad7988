"""What the commands for a cluster say before they ask one. With a cluster: tests/promises/test_submit.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from hfray.cli import app
from hfray.errors import SpecError

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def job(tmp_path: Path) -> str:
    path = tmp_path / "job.yaml"
    spec = {
        "kind": "score", "name": "trial", "model": {"path": "org/name"}, "task": {"name": "feature-extraction"},
        "input": {"path": "in.jsonl"}, "output": {"path": "out"},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(spec))
    return str(path)


def refusal(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, SpecError), result.output
    return str(result.exception)


def test_a_mistake_is_said_before_the_cluster_is_asked(job: str) -> None:
    at = ("--address", NOBODY)
    assert "a secret by its name" in refusal("submit", job, *at, "--env", "HF_TOKEN")
    assert "did you mean feature-extraction?" in refusal("submit", job, *at, "--set", "task.name=feature-extractoin")
    assert "there is no such file" in refusal("submit", f"{job}x", *at)
    assert "not the address of a dashboard" in refusal("jobs", "--address", "ray://head:10001")


@pytest.mark.parametrize("command", [["jobs"], ["status", "trial"], ["logs", "trial"], ["stop", "trial"]])
def test_nobody_is_there(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")  # as the command does; here it must not stay
    assert "no Ray dashboard answers there" in refusal(*command, "--address", NOBODY)
