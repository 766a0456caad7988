"""The token that Ray's processes ask each other for: a file of the user. Knows Ray's variables and its place; Ray does
the asking. New local clusters ask for one by default; Ray would make the file readable by everybody.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from hfray.training.secret import make_secret_file

_NAMED_ELSEWHERE = frozenset({"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"})


def token_file() -> Path:
    """Where Ray keeps the token unless a variable names another."""
    return Path.home() / ".ray" / "auth_token"


def make_token() -> None:
    """Before a local Ray starts. A token that is there stays as it is, and becomes the user's alone to read."""
    if _NAMED_ELSEWHERE & os.environ.keys() or os.environ.get("RAY_AUTH_MODE", "token") != "token":
        return
    with contextlib.suppress(OSError):  # a home that cannot be written: Ray says what it needs, as without us
        path = token_file()
        if not path.exists():
            make_secret_file(path)
        elif path.stat().st_mode & 0o077:
            path.chmod(0o600)


def show_token() -> None:
    """Before a cluster is asked. Ray sends the token that it has only where it is told to."""
    if _NAMED_ELSEWHERE & os.environ.keys() or token_file().exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
