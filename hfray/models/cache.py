"""The hub's cache on this machine: which revisions are there, how large, when they were last used, and which can go.

Knows the client's scan of its folder; prints nothing. A revision's files may be shared with another of its repository,
so what is freed can be less than the sizes say.
"""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from hfray.errors import DataError, SpecError

_UNITS_S = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_MIN_HASH_CHARS = 7
_HEX = re.compile(r"[0-9a-f]{7,40}")


@dataclass(frozen=True, slots=True)
class CachedRevision:
    """One commit of one repository, as far as it was downloaded."""

    repo: str
    kind: str
    """model, dataset, space."""
    revision: str
    refs: tuple[str, ...]
    """Branches and tags that were this commit when they were last asked for."""
    size_bytes: int
    last_used: float
    """Unix time of the last read of one of its files, as far as the file system notes it."""
    last_modified: float
    """Unix time of its last download."""

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class CacheContent:
    """Everything in the cache."""

    folder: str
    revisions: tuple[CachedRevision, ...]
    """By repository, the latest download of each first."""
    size_bytes: int
    """On the disk: files of several revisions count once."""
    incomplete_bytes: int
    """Of downloads that were interrupted."""
    problems: tuple[str, ...]
    """Folders that are no sound repositories."""


def read_cache() -> CacheContent:
    """Raises DataError for a folder that cannot be read."""
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        found = scan_cache_dir(constants.HF_HUB_CACHE)
    except CacheNotFound:
        return CacheContent(str(constants.HF_HUB_CACHE), (), 0, 0, ())
    except (OSError, ValueError) as error:
        raise DataError(f"{constants.HF_HUB_CACHE}: the cache cannot be read: {error}") from error
    revisions = [
        CachedRevision(
            repo.repo_id,
            repo.repo_type,
            each.commit_hash,
            tuple(sorted(each.refs)),
            each.size_on_disk,
            _last_used(repo, each),
            each.last_modified,
        )
        for repo in found.repos
        for each in repo.revisions
    ]
    ordered = sorted(revisions, key=lambda each: (each.kind, each.repo, -each.last_modified, each.revision))
    problems = tuple(str(warning) for warning in found.warnings)
    folder = str(constants.HF_HUB_CACHE)
    return CacheContent(folder, tuple(ordered), found.size_on_disk, found.incomplete_size_on_disk, problems)


def choose(
    content: CacheContent,
    names: Sequence[str] = (),
    *,
    older_than_s: float | None = None,
    keep: int | None = None,
    now: float,
) -> tuple[CachedRevision, ...]:
    """Those that can go: of the named ones (all without names), those not used for so long, without the latest `keep`
    of each repository. Raises SpecError for a name that is not there, and when nothing is said at all.

    names: commits (seven digits do), `org/name`, or `org/name@branch`.
    """
    if not names and older_than_s is None and keep is None:
        raise SpecError("which? Name revisions or repositories, or say --older-than 30d, or --keep 1")
    if keep is not None and keep < 0:
        raise SpecError(f"--keep {keep}: must be a number of revisions")
    chosen = [each for each in content.revisions if not names or any(_is_called(each, name) for name in names)]
    for name in names:
        if not any(_is_called(each, name) for each in content.revisions):
            raise SpecError(f"{name}: not in the cache{_hint(content, name)}")
    if older_than_s is not None:
        chosen = [each for each in chosen if now - max(each.last_used, each.last_modified) > older_than_s]
    kept = _latest(content.revisions, keep or 0)
    return tuple(each for each in chosen if each not in kept)


def delete(revisions: Collection[CachedRevision], *, dry_run: bool = False) -> int:
    """Deletes them, or only counts. How many bytes that frees. Raises DataError when the disk does not let go."""
    if not revisions:
        return 0
    from huggingface_hub import constants, scan_cache_dir

    try:
        strategy = scan_cache_dir(constants.HF_HUB_CACHE).delete_revisions(*(each.revision for each in revisions))
        if not dry_run:
            strategy.execute()
    except OSError as error:
        raise DataError(f"the cache could not be pruned: {error}") from error
    return int(strategy.expected_freed_size)


def seconds_of(text: str) -> float:
    """`30d` -> 2,592,000. Raises SpecError for anything but a number of m, h, d or w."""
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS_S or not number.isdecimal():
        raise SpecError(f"--older-than {text}: write a number of minutes, hours, days or weeks, such as 30d")
    return int(number) * _UNITS_S[unit]


def _last_used(repo: Any, revision: Any) -> float:
    """By the files that no other revision has, if there are any: reading a shared one tells of neither."""
    others = {file.blob_path for each in repo.revisions if each is not revision for file in each.files}
    own = [file for file in revision.files if file.blob_path not in others] or revision.files
    return max((float(file.blob_last_accessed) for file in own), default=float(repo.last_accessed))


def _is_called(each: CachedRevision, name: str) -> bool:
    repo, at, revision = name.partition("@")
    if not at and _HEX.fullmatch(name):
        return each.revision.startswith(name)
    if repo not in (each.repo, f"{each.kind}s/{each.repo}"):
        return False
    return not at or revision in each.refs or (len(revision) >= _MIN_HASH_CHARS and each.revision.startswith(revision))


def _latest(revisions: Sequence[CachedRevision], keep: int) -> set[CachedRevision]:
    repos: dict[tuple[str, str], list[CachedRevision]] = defaultdict(list)
    for each in revisions:
        repos[each.kind, each.repo].append(each)
    return {each for found in repos.values() for each in sorted(found, key=lambda r: -r.last_modified)[:keep]}


def _hint(content: CacheContent, name: str) -> str:
    close = difflib.get_close_matches(name.partition("@")[0], {each.repo for each in content.revisions}, n=1)
    return f", did you mean {close[0]}?" if close else "; `hfray cache list` shows what is"
