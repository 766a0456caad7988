"""Which paths of a job lie on a disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from hfray.kinds.job_paths import JobPath


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "here").mkdir(parents=True)


@pytest.mark.parametrize(
    ("path", "may_be_hub", "on_disk"),
    [
        ("org/name", True, False),
        ("org/name@main", True, False),
        ("bert", True, False),
        ("org/here", True, True),
        ("./org/name", True, True),
        ("~/model", True, True),
        ("a/b/c", True, True),
        ("org/name", False, True),
        ("file:///a%20b/c", False, True),
        ("package:some/model", True, False),
        ("s3://bucket/x", False, False),
        ("hf://datasets/org/name", True, False),
    ],
)
def test_what_lies_on_a_disk(path: str, may_be_hub: bool, on_disk: bool) -> None:
    assert JobPath(("key",), path, may_be_hub).on_disk is on_disk
