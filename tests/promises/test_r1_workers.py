"""R1: a killed actor neither loses nor doubles a row."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from tests.promises import oracle, undisturbed
from tests.promises.rig import Observer, Rig, kill_workers, seeds

KILLS = 5


@pytest.mark.parametrize("seed", seeds(1, 30))
def test_kills_of_scoring_workers_lose_and_double_no_row(rig: Rig, seed: int) -> None:
    source = rig.input(10_000)
    job = rig.job(source, seconds_per_item=0.003)
    with Observer(rig.output):
        run = rig.start(job)
        rig.wait_for(lambda: rig.num_parts() >= 1, run)
        kills = kill_workers(run, rig.nodes.workers, seed, KILLS)
        status = run.wait()
    print(f"seed {seed}: {kills} kills")
    assert status == 0, run.text()
    assert kills >= KILLS
    oracle.check(rig.output, pq.read_table(source), undisturbed.run(job, rig.folder / "undisturbed"))
