"""Shards to an autoscaling pool of Ray Data actors, receipts back. Knows Ray; not what a worker does.

The dataset holds descriptors, never rows: each block is one task, a list of shard numbers. Tasks shrink towards the
end (guided self-scheduling), so that a million shards need a few thousand tasks and the last ones end together.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from hfray.errors import SpecError
from hfray.inference.receipt import Receipt, ShardFailure, Tick
from hfray.kinds.cluster import Cluster
from hfray.kinds.counter import Ticks
from hfray.kinds.ray_task import resources
from hfray.spec.sections import WorkersSpec

MIN_TASK_SHARDS = 8
MAX_TASKS = 1500
ANSWER_EVERY_S = 5.0
SHARDS_AT_ONCE = 2  # per actor: one computes while the other is read, encoded and written

WorkerFactory = Callable[[Callable[[Tick], None], Callable[[dict[str, Any]], None]], Any]
"""(tick, model facts) -> worker; called once in every actor. The worker has a method for each thing it can do to a
shard: shard number -> Receipt or ShardFailure."""


class ShardActor:
    """The callable class that Ray Data runs."""

    def __init__(self, make_worker: WorkerFactory, counter: Any, method: str, cpus: float) -> None:
        threads = max(1, int(cpus))
        os.environ["OMP_NUM_THREADS"] = os.environ["RAYON_NUM_THREADS"] = str(threads)
        # One thread needs no pool of them, whose only thread would be another one than that which frees the memory.
        os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
        name = f"{os.uname().nodename}:{os.getpid()}"
        self._ticks = Ticks(lambda rows, failed, tokens: counter.tick.remote(name, rows, failed, tokens))
        self._worker = make_worker(
            lambda tick: self._ticks.add(tick.rows, tick.failed, tick.tokens),
            lambda model: counter.loaded.remote(name, model),
        )
        self._run = getattr(self._worker, method)

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Answers every few seconds, so that slow shards are known when they are done and fast ones cost no message
        each."""
        (task,) = batch["shards"]
        answers: list[Any] = []
        answered_at = time.monotonic()
        for shard in json.loads(task):
            answer = self._run(shard)
            answers.append(["receipt" if isinstance(answer, Receipt) else "failure", asdict(answer)])
            if time.monotonic() - answered_at > ANSWER_EVERY_S:
                yield {"answers": [json.dumps(answers)]}
                answers, answered_at = [], time.monotonic()
        self._ticks.flush()
        if answers:
            yield {"answers": [json.dumps(answers)]}


def run_shards(
    cluster: Cluster,
    shards: Sequence[int],
    make_worker: WorkerFactory,
    workers: WorkersSpec,
    *,
    counter: Any,
    method: str,
) -> Iterator[Receipt | ShardFailure]:
    """Yields one answer per shard, in the order in which they are done. Raises what a worker raised, wrapped by Ray.

    method: of the worker, that does it.
    """
    import pyarrow as pa
    import ray.data

    smallest, largest = pool_size(cluster, workers)
    tasks = [json.dumps(task) for task in guided_tasks(shards, largest)]
    smallest = min(smallest, len(tasks))
    context = ray.data.DataContext.get_current()
    # A block is passed on when it is full, and a byte fills it: answers travel when given, not at a task's end.
    context.target_max_block_size = 1
    # Without a queue at the actors a full pool is at 1.0, and Ray's own threshold of 1.75 would never let it grow.
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
    # Unlike from_arrow, from_blocks keeps each block as it is and asks no Ray task for its metadata.
    dataset = ray.data.from_blocks([pa.table({"shards": [task]}) for task in tasks]).map_batches(
        ShardActor,
        batch_size=1,
        fn_constructor_args=(make_worker, counter, method, workers.cpus),
        **resources(workers),
        compute=ray.data.ActorPoolStrategy(
            min_size=smallest,
            max_size=max(smallest, min(largest, len(tasks))),
            max_tasks_in_flight_per_actor=SHARDS_AT_ONCE,  # a queue at one actor is work that an idle one lacks
            max_concurrent_calls_per_actor=SHARDS_AT_ONCE,
            enable_true_multi_threading=True,
        ),
    )
    # Not iter_batches: it asks Ray from a thread of its own, which goes on after an early end, and Ray ends a process
    # on the spot, without a word, whose threads call it after its shutdown.
    for bundle in dataset.iter_internal_ref_bundles():
        for block in ray.get(list(bundle.block_refs)):
            for lines in block["answers"].to_pylist():
                for kind, fields in json.loads(lines):
                    yield Receipt(**fields) if kind == "receipt" else ShardFailure(**fields)


def guided_tasks(shards: Sequence[int], workers: int) -> Iterator[list[int]]:
    """Shards in order, in tasks of a quarter of an equal share of what is left, between one shard and a cap that keeps
    the number of tasks near MAX_TASKS."""
    cap = max(MIN_TASK_SHARDS, len(shards) // MAX_TASKS)
    start = 0
    while start < len(shards):
        share = (len(shards) - start) // (4 * workers)
        size = max(1, min(cap, share))
        yield list(shards[start : start + size])
        start += size


def pool_size(cluster: Cluster, workers: WorkersSpec) -> tuple[int, int]:
    """(min, max) actors. Raises SpecError when a local machine cannot hold a single one."""
    fits = []
    for resource, each in (("CPU", workers.cpus), ("GPU", workers.gpus)):
        if each:
            total = cluster.total(resource, workers.labels)
            fits.append(int(total // each))
            if cluster.is_local and total < each:
                raise SpecError(
                    f"workers.{resource.lower()}s: a worker wants {each:g}, but this machine has {total:g} {resource}"
                )
    most = max(1, min(fits, default=1))
    largest = most if workers.max is None else workers.max
    if cluster.is_local:
        largest = min(largest, most)
    return min(workers.min, largest), largest
