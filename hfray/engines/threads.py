"""Which thread calls torch. Knows threads; not what they compute.

On a CPU, OpenMP gives every thread that calls torch helpers of its own, which stay until that thread ends. Once there
are more of them than cores, GNU's OpenMP lets helpers sleep between two operations instead of waiting awake, and to
wake them takes longer than most operations of a small model (its `GOMP_SPINCOUNT`). So one thread alone may keep
helpers: the engine's.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def in_brief_thread(run: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `run` returns or raises, called in a thread that ends with it, and its helpers too. For whatever calls torch
    before an engine does: loading, a first look."""
    with ThreadPoolExecutor(1, thread_name_prefix="hfray-brief") as thread:
        return thread.submit(run, *args, **kwargs).result()
