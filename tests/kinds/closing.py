"""A pool that is left after its first answer, in a process of its own; prints the threads that remain, as JSON."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from hfray.inference.receipt import Receipt
from hfray.kinds.cluster import cluster
from hfray.kinds.counter import Counter
from hfray.kinds.pool import run_shards
from hfray.spec.sections import WorkersSpec


class SlowWorker:
    """Answers for a shard after a moment, and computes nothing."""

    def score(self, shard: int) -> Receipt:
        time.sleep(0.5)
        return Receipt(shard=shard, rows=1, failed=0, size_bytes=1, sha256="0" * 64)


def make_worker(tick: Callable[..., None], loaded: Callable[[dict[str, Any]], None]) -> Any:
    return SlowWorker()


def main() -> None:
    import ray

    with cluster() as each:
        each.connect()
        counter = ray.remote(num_cpus=0)(Counter).remote()
        before = set(threading.enumerate())
        answers = run_shards(each, range(100), make_worker, WorkersSpec(min=1, max=1), counter=counter, method="score")
        next(answers)
        answers.close()  # type: ignore[attr-defined]
        left = [thread.name for thread in threading.enumerate() if thread not in before]
    print(json.dumps({"left": left}))


if __name__ == "__main__":
    main()
