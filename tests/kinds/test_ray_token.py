"""The file of Ray's token is the user's alone, before Ray makes it otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hfray.kinds.ray_token import make_token, show_token, token_file

STARTS_RAY = """
from hfray.kinds.cluster import cluster
from ray._raylet import AuthenticationMode, get_authentication_mode
with cluster() as each:
    each.connect()
    assert get_authentication_mode() == AuthenticationMode.TOKEN
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        # Set first: what the code sets in its place is taken back too.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return tmp_path


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_token_is_made_once_and_read_by_nobody_else(home: Path) -> None:
    make_token()
    assert token_file() == home / ".ray" / "auth_token"
    content = token_file().read_text()
    assert (mode(token_file()), len(content)) == (0o600, 64)
    make_token()
    assert token_file().read_text() == content


def test_a_token_that_ray_made_is_closed_and_kept() -> None:
    token_file().parent.mkdir()
    token_file().write_text("a" * 64)
    token_file().chmod(0o644)
    make_token()
    assert (mode(token_file()), token_file().read_text()) == (0o600, "a" * 64)


def test_a_token_that_is_named_is_left_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "mine"))
    make_token()
    assert list(home.iterdir()) == []
    show_token()
    assert os.environ["RAY_AUTH_MODE"] == "token"


def test_none_is_made_where_none_is_asked_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    make_token()
    assert list(home.iterdir()) == []


def test_a_token_is_shown_where_there_is_one_and_nothing_else_is_said() -> None:
    show_token()
    assert "RAY_AUTH_MODE" not in os.environ
    make_token()
    show_token()
    assert os.environ["RAY_AUTH_MODE"] == "token"
    os.environ["RAY_AUTH_MODE"] = "disabled"
    show_token()
    assert os.environ["RAY_AUTH_MODE"] == "disabled"


def test_a_home_that_cannot_be_written_is_rays_to_tell(home: Path) -> None:
    (home / ".ray").write_text("a file in the way")
    make_token()


@pytest.mark.slow
def test_a_local_ray_asks_for_the_token_that_was_made() -> None:
    subprocess.run([sys.executable, "-c", STARTS_RAY], check=True, timeout=120)
    assert mode(token_file()) == 0o600
    assert len(token_file().read_text()) == 64
