"""Shards through the pool with workers that only sleep: how many of them one driver keeps busy. Prints JSON.

python -m benchmarks.knee WORKERS SECONDS SHARDS     so many workers, so long for each of so many shards
python -m benchmarks.knee counter                    what one report of progress costs the actor that adds them up
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from hfray.inference.receipt import Receipt
from hfray.kinds.cluster import cluster
from hfray.kinds.counter import Counter
from hfray.kinds.pool import run_shards
from hfray.spec.sections import WorkersSpec

TICKS = 20_000
CPUS_OF_ONE = 0.01
"""Ray's word for next to nothing: sleeping takes no processor, and the machine has few."""


class Sleeper:
    """As long for each shard as a model would take."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def score(self, shard: int) -> Receipt:
        time.sleep(self._seconds)
        return Receipt(shard=shard, rows=4096, failed=0, size_bytes=1_000_000, sha256="0" * 64)


def make_sleeper(seconds: float, tick: Callable[..., None], loaded: Callable[[dict[str, Any]], None]) -> Any:
    return Sleeper(seconds)


def shards(num_workers: int, seconds: float, num_shards: int) -> dict[str, float]:
    """Answers a second in the middle half of the run: the first workers do not wait for the last, nor the end for the
    slowest."""
    import ray

    with cluster() as each:
        each.connect()
        counter = ray.remote(num_cpus=0)(Counter).remote()
        workers = WorkersSpec(min=num_workers, max=num_workers, cpus=CPUS_OF_ONE)
        each.is_local = False  # as many workers as asked for, whatever this machine is
        seen = []
        make = partial(make_sleeper, seconds)
        for _ in run_shards(each, range(num_shards), make, workers, counter=counter, method="score"):
            seen.append(time.perf_counter())
    middle = seen[len(seen) // 4 : 3 * len(seen) // 4]
    return {"workers": num_workers, "seconds": seconds, "per_s": (len(middle) - 1) / (middle[-1] - middle[0])}


def counter_cost() -> dict[str, float]:
    import ray

    with cluster() as each:
        each.connect()
        counter = ray.remote(num_cpus=0)(Counter).remote()
        ray.get(counter.snapshot.remote())
        started = time.perf_counter()
        for _ in range(TICKS):
            counter.tick.remote("worker", 1, 0, 1)
        ray.get(counter.snapshot.remote())
        return {"ms_per_tick": 1000 * (time.perf_counter() - started) / TICKS}


if __name__ == "__main__":
    if sys.argv[1] == "counter":
        print(json.dumps(counter_cost()))
    else:
        print(json.dumps(shards(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))))
