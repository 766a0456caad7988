"""Very many shards through the pool with workers that do nothing: what remains is the driver's own cost."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from typing import Any

from hfray.inference.receipt import Receipt
from hfray.kinds.cluster import cluster
from hfray.kinds.counter import Counter
from hfray.kinds.pool import run_shards
from hfray.spec.sections import WorkersSpec

SHARDS = 100_000
MANY = 1_000_000


class Nothing:
    """Answers with a receipt at once."""

    def score(self, shard: int) -> Receipt:
        return Receipt(shard=shard, rows=4096, failed=0, size_bytes=1_000_000, sha256="0" * 64)


def make_nothing(tick: Callable[..., None], loaded: Callable[[dict[str, Any]], None]) -> Any:
    return Nothing()


def main() -> None:
    import ray

    with cluster() as each:
        each.connect()
        counter = ray.remote(num_cpus=0)(Counter).remote()
        workers = WorkersSpec(min=2, max=2)
        warm = run_shards(each, range(2), make_nothing, workers, counter=counter, method="score")
        list(warm)
        started = time.perf_counter()
        answers = run_shards(each, range(MANY), make_nothing, workers, counter=counter, method="score")
        next(answers)
        first_s = time.perf_counter() - started
        answers.close()
        started = time.perf_counter()
        count = sum(1 for _ in run_shards(each, range(SHARDS), make_nothing, workers, counter=counter, method="score"))
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"shards": count, "ms_per_shard": 1000 * seconds / count, "first_s": first_s, "driver_mib": peak}))


if __name__ == "__main__":
    main()
