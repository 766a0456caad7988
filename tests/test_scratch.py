"""A folder for its user alone, beside which everybody may write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hfray.errors import EngineError
from hfray.scratch import make_own_folder, own_folder


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_it_is_made_for_its_users_eyes_only(temporary: Path) -> None:
    assert own_folder() == temporary / f"hfray-{os.getuid()}"
    assert not own_folder().exists()
    assert make_own_folder() == make_own_folder() == own_folder()
    own_folder().chmod(0o755)
    assert make_own_folder().stat().st_mode & 0o777 == 0o700


def test_what_somebody_else_has_put_there_is_refused(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_folder().symlink_to(temporary)
    with pytest.raises(EngineError, match="is not a folder of this user; remove it, or set TMPDIR"):
        make_own_folder()
    own_folder().unlink()
    own_folder().touch()
    with pytest.raises(EngineError, match="cannot be made: File exists"):
        make_own_folder()
    own_folder().unlink()
    make_own_folder()
    user = os.getuid()
    monkeypatch.setattr("hfray.scratch.own_folder", lambda: temporary / f"hfray-{user}")
    monkeypatch.setattr("os.getuid", lambda: user + 1)
    with pytest.raises(EngineError, match="is not a folder of this user"):
        make_own_folder()
