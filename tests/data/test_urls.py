"""Paths by their spelling. Schemes and what is wrong with them: test_storage.py."""

from __future__ import annotations

import pytest

from hfray.data.urls import above_glob


@pytest.mark.parametrize(
    ("path", "above"),
    [("/a/b.csv", "/a/b.csv"), ("/a/*.csv", "/a"), ("/a/b?/c", "/a"), ("/a/x[12]/*.csv", "/a"), ("/a/**/c.csv", "/a")],
)
def test_what_is_above_a_glob(path: str, above: str) -> None:
    assert above_glob(path) == above
