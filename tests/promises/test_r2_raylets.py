"""R2: nor does a killed raylet; a job ends with one of three nodes left."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.promises import oracle, undisturbed
from tests.promises.rig import Nodes, Observer, Rig, environment, seeds


@pytest.fixture
def three(faults: Path) -> Iterator[Nodes]:
    cluster = Nodes(0, environment(faults))
    for _ in range(3):
        cluster.add(1)
    yield cluster
    cluster.close()


@pytest.mark.parametrize("seed", seeds(1, 20))
def test_removed_raylets_lose_and_double_no_row(rig: Rig, three: Nodes, seed: int) -> None:
    """Two of three are killed at random moments; in half the runs one joins 5 s after the first."""
    dice = random.Random(seed)
    source = rig.input(6_000)
    job = rig.job(source, seconds_per_item=0.004, workers={"max": 3})
    victims = dice.sample(range(3), 2)
    with Observer(rig.output):
        run = rig.start(job, nodes=three)
        rig.wait_for(lambda: rig.num_parts() >= 1, run)
        for number, victim in enumerate(victims):
            time.sleep(dice.uniform(0, 2))
            three.remove(victim)
            if number == 0 and seed % 2:
                time.sleep(5)
                three.add(1)
        parts = rig.num_parts()
        status = run.wait()
    print(f"seed {seed}: killed {victims} by {parts} of 24 parts, {'one' if seed % 2 else 'none'} joined")
    assert status == 0, run.text()
    oracle.check(rig.output, pq.read_table(source), undisturbed.run(job, rig.folder / "undisturbed"))


@pytest.mark.chaos
def test_a_node_that_is_told_to_go_is_left_in_time(rig: Rig, three: Nodes) -> None:
    """A preemption notice: ten seconds, then the node is gone, with all that is left there."""
    source = rig.input(6_000)
    job = rig.job(source, seconds_per_item=0.01, workers={"max": 3})
    run = rig.start(job, nodes=three)
    rig.wait_for(lambda: rig.num_parts() >= 3, run)
    three.ask({"drain": 0, "seconds": 10})
    time.sleep(10)
    three.remove(0)
    assert run.wait() == 0, run.text()
    oracle.check(rig.output, pq.read_table(source), undisturbed.run(job, rig.folder / "undisturbed"))
