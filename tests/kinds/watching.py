"""Two watches over a local Ray of two CPUs, in a process of its own; prints what they showed, as JSON."""

from __future__ import annotations

import contextlib
import io
import json
import threading
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console

from hfray.errors import EngineError
from hfray.kinds import watch
from hfray.kinds.cluster import cluster
from hfray.kinds.progress import Progress
from hfray.kinds.watch import Watch, watched

Work = Callable[[Watch, Callable[[], str]], None]


def main() -> None:
    watch.POLL_S = 0.05
    with cluster() as ray_cluster:
        ray_cluster.connect()
        print(json.dumps({"counted": session(count), "killed": session(kill), "stuck": stuck()}))


def session(work: Work) -> dict[str, Any]:
    """A job of 100 rows, 20 of which an earlier one left, while `work` is done."""
    console = Console(file=io.StringIO(), width=120)
    shown: Callable[[], str] = console.file.getvalue  # type: ignore[attr-defined]
    with (
        Progress(console, 100) as progress,
        watched(progress, phase="scoring", check_start=lambda: None, resumed_rows=20, resumed_failed=1) as each,
    ):
        work(each, shown)
    return {"shown": shown(), "model": each.model}


def stuck() -> str | None:
    """What ends the wait of the main thread."""

    def check_start() -> None:
        raise EngineError("no room")

    silent = Progress(Console(file=io.StringIO()), 100)
    with silent as progress, contextlib.suppress(KeyboardInterrupt):
        try:
            with watched(progress, phase="scoring", check_start=check_start, resumed_rows=0, resumed_failed=0):
                threading.Event().wait(60)
        except EngineError as error:
            return str(error)
    return None


def count(each: Watch, shown: Callable[[], str]) -> None:
    import ray

    tick, loaded = each.counter.tick, each.counter.loaded
    ray.get([loaded.remote("a", {"path": "m"}), tick.remote("a", 30, 2, 500), tick.remote("b", 10, 0, 100)])


def kill(each: Watch, shown: Callable[[], str]) -> None:
    import ray

    ray.get(each.counter.tick.remote("a", 30, 0, 500))
    deadline_s = time.monotonic() + 60
    while "scoring" not in shown():
        assert time.monotonic() < deadline_s, "the counts never arrived"
        time.sleep(0.01)
    ray.kill(each.counter, no_restart=True)
    time.sleep(4 * watch.POLL_S)
    each.counter.tick.remote("a", 10, 0, 100)  # an actor that does not know of it


if __name__ == "__main__":
    main()
