"""Jobs of every kind with their workers in this process: the pool and the watch over it are left out, nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from hfray.kinds import shards
from hfray.kinds.cluster import Cluster


def use(monkeypatch: pytest.MonkeyPatch, run_shards: Callable[..., Any]) -> None:
    """Until the test ends, `run_shards` is the pool, and no Ray is started."""
    monkeypatch.setattr(shards, "run_shards", run_shards)
    monkeypatch.setattr(
        shards, "watched", lambda *args, **kwargs: contextlib.nullcontext(SimpleNamespace(counter=None, model=None))
    )
    monkeypatch.setattr(Cluster, "connect", lambda self: None)
    monkeypatch.setattr(Cluster, "probe", lambda self, urls, output: None)
