"""How shards are dealt out, and how many actors there may be. What Ray does with them: tests/promises."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfray.errors import SpecError
from hfray.inference.receipt import Receipt, ShardFailure
from hfray.kinds import pool
from hfray.kinds.counter import Counter
from hfray.kinds.pool import MAX_TASKS, MIN_TASK_SHARDS, ShardActor, guided_tasks, pool_size
from hfray.spec.sections import WorkersSpec
from tests.kinds.apart import run_apart


@given(st.lists(st.integers(0, 10**6), max_size=3_000, unique=True), st.integers(1, 200))
def test_every_shard_is_in_one_task_and_in_order(shards: list[int], workers: int) -> None:
    tasks = list(guided_tasks(shards, workers))
    assert [shard for task in tasks for shard in task] == shards
    assert all(tasks)


@given(st.integers(1, 20_000), st.integers(1, 100))
def test_tasks_shrink_and_the_last_ones_are_single_shards(num_shards: int, workers: int) -> None:
    sizes = [len(task) for task in guided_tasks(range(num_shards), workers)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1
    assert sizes[0] <= max(MIN_TASK_SHARDS, num_shards // MAX_TASKS)


def test_a_million_shards_need_few_tasks() -> None:
    assert sum(1 for _ in guided_tasks(range(1_000_000), 100)) < 3 * MAX_TASKS


def test_few_shards_keep_every_worker_busy() -> None:
    assert len(list(guided_tasks(range(40), 8))) >= 8


class Machine:
    """A cluster as `pool_size` sees it."""

    def __init__(self, cpus: float, gpus: float = 0, *, is_local: bool = True) -> None:
        self._total = {"CPU": cpus, "GPU": gpus}
        self.is_local = is_local

    def total(self, resource: str, labels: Mapping[str, str] | None = None) -> float:
        return self._total[resource]


@pytest.mark.parametrize(
    ("machine", "spec", "expected"),
    [
        (Machine(8), {}, (1, 8)),
        (Machine(8), {"cpus": 3}, (1, 2)),
        (Machine(8), {"cpus": 0.5, "max": 4}, (1, 4)),
        (Machine(8), {"min": 20, "max": 30}, (8, 8)),
        (Machine(8, 2), {"gpus": 0.5}, (1, 4)),
        (Machine(2, 8), {"gpus": 1}, (1, 2)),
        (Machine(0, is_local=False), {"max": 5}, (1, 5)),  # a cluster whose workers are still to come
        (Machine(0, is_local=False), {}, (1, 1)),
    ],
)
def test_how_many_actors(machine: Any, spec: dict[str, Any], expected: tuple[int, int]) -> None:
    assert pool_size(machine, WorkersSpec(**spec)) == expected


@pytest.mark.parametrize(("spec", "wanted"), [({"cpus": 16}, "cpus"), ({"gpus": 1}, "gpus")])
def test_a_machine_that_cannot_hold_one_worker_says_so(spec: dict[str, Any], wanted: str) -> None:
    machine: Any = Machine(8)
    with pytest.raises(SpecError, match=rf"workers\.{wanted}: a worker wants .* this machine has"):
        pool_size(machine, WorkersSpec(**spec))


def test_the_counter_adds_up() -> None:
    counter = Counter()
    counter.tick("a", 10, 1, 100)
    counter.tick("b", 5, 0, 50)
    counter.loaded("b", {"path": "m"})
    snapshot = counter.snapshot()
    assert (snapshot.rows, snapshot.failed, snapshot.tokens, snapshot.workers) == (15, 1, 150, 2)
    assert snapshot.model == {"path": "m"}


class Worker:
    """Answers like a ShardWorker."""

    def score(self, shard: int) -> Receipt | ShardFailure:
        return Receipt(shard, 1, 0, 10, "ab") if shard else ShardFailure(shard, "f", "cut")

    retry = score


@pytest.mark.parametrize(("every_s", "messages"), [(100.0, 1), (-1.0, 3)])
def test_an_actor_answers_for_every_shard(monkeypatch: pytest.MonkeyPatch, every_s: float, messages: int) -> None:
    monkeypatch.setattr(pool, "ANSWER_EVERY_S", every_s)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("RAYON_NUM_THREADS", "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    make: Any = lambda tick, loaded: Worker()  # noqa: E731
    batches = list(ShardActor(make, None, "score", 1)({"shards": ["[0, 1, 2]"]}))
    assert len(batches) == messages
    answers = [answer for batch in batches for line in batch["answers"] for answer in json.loads(line)]
    assert [kind for kind, _ in answers] == ["failure", "receipt", "receipt"]
    assert Receipt(**answers[1][1]).shard == 1
    assert answers[0][1] == asdict(ShardFailure(0, "f", "cut"))


@pytest.mark.slow
def test_a_pool_that_is_left_early_leaves_no_thread_behind() -> None:
    """Ray ends a process without a word when a thread calls it after its shutdown."""
    assert run_apart("closing")["left"] == []
