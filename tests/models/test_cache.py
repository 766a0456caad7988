"""The hub's cache as its client really leaves it: what is there, what may go, what stays."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from huggingface_hub import constants, hf_hub_download

from hfray.errors import SpecError
from hfray.models.cache import CacheContent, CachedRevision, choose, delete, read_cache, seconds_of
from tests.hub_stand_in import Repo, point_at, serve_hub

OLD, NEW, OTHER = "a" * 40, "b" * 40, "c" * 40
DAY_S = 86_400


@pytest.fixture
def content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CacheContent:
    """org/one at two commits that share a file, and a data set."""
    for name, text in (("old", "1" * 100), ("new", "2" * 200), ("set", "3" * 50)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text(text)
        (tmp_path / name / "shared").write_text("s" * 1000)
    with serve_hub() as hub:
        hub.repos["org/one"] = Repo({OLD: tmp_path / "old", NEW: tmp_path / "new"}, {"main": NEW})
        hub.repos["datasets/org/set"] = Repo({OTHER: tmp_path / "set"}, {"main": OTHER})
        point_at(monkeypatch, hub.endpoint, tmp_path / "cache")
        for number, (repo, kind, revision) in enumerate(
            (("org/one", "model", OLD), ("org/one", "model", "main"), ("org/set", "dataset", "main"))
        ):
            for name in ("weights", "shared"):
                path = hf_hub_download(repo, name, revision=revision, repo_type=kind)
                used = time.time() - (40 if name == "shared" else (3 - number) * 10) * DAY_S
                os.utime(path, (used, used))
        found = read_cache()
    return found


def revisions(chosen: tuple[CachedRevision, ...]) -> list[str]:
    return [each.revision[0] for each in chosen]


def test_what_is_there(content: CacheContent) -> None:
    assert [(each.kind, each.repo, each.revision, each.refs) for each in content.revisions] == [
        ("dataset", "org/set", OTHER, ("main",)),
        ("model", "org/one", NEW, ("main",)),
        ("model", "org/one", OLD, ()),
    ]
    assert [each.size_bytes for each in content.revisions] == [1050, 1200, 1100]
    assert content.size_bytes == 1050 + 1300
    assert content.problems == ()


def test_an_empty_place_is_an_empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "none"))
    assert read_cache() == CacheContent(str(tmp_path / "none"), (), 0, 0, ())


@pytest.mark.parametrize(
    ("names", "settings", "wanted"),
    [
        (["aaaaaaa"], {}, ["a"]),
        (["org/one"], {}, ["b", "a"]),
        (["org/one@main"], {}, ["b"]),
        (["org/one@aaaaaaa", "datasets/org/set"], {}, ["c", "a"]),
        ([], {"keep": 1}, ["a"]),
        ([], {"keep": 0}, ["c", "b", "a"]),
        ([], {"older_than_s": 15 * DAY_S}, ["b", "a"]),
        ([], {"older_than_s": 15 * DAY_S, "keep": 1}, ["a"]),
        ([], {"older_than_s": 25 * DAY_S}, ["a"]),
        (["org/set"], {"older_than_s": 15 * DAY_S}, []),
    ],
)
def test_what_may_go(content: CacheContent, names: list[str], settings: dict[str, int], wanted: list[str]) -> None:
    assert revisions(choose(content, names, now=time.time(), **settings)) == wanted


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        ([], {}, r"which\? Name revisions"),
        (["org/onne"], {}, r"org/onne: not in the cache, did you mean org/one\?"),
        (["org/one@dev"], {}, "org/one@dev: not in the cache"),
        (["ddddddd"], {}, "`hfray cache list` shows what is"),
        ([], {"keep": -1}, "must be a number of revisions"),
    ],
)
def test_what_cannot_be_meant(content: CacheContent, names: list[str], settings: dict[str, int], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        choose(content, names, now=time.time(), **settings)


def test_what_goes_and_what_others_need(content: CacheContent) -> None:
    chosen = choose(content, ["aaaaaaa"], now=time.time())
    assert delete(chosen, dry_run=True) == 100
    assert read_cache() == content
    assert delete(chosen) == 100
    left = read_cache()
    assert revisions(left.revisions) == ["c", "b"]
    assert left.size_bytes == 1050 + 1200
    assert delete(()) == 0


def test_ages() -> None:
    assert [seconds_of(text) for text in ("90m", "2h", "30d", "1w")] == [5400, 7200, 30 * DAY_S, 7 * DAY_S]
    for text in ("30", "d", "-1d", "1.5d", ""):
        with pytest.raises(SpecError, match="such as 30d"):
            seconds_of(text)
