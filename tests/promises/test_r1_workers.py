"""R1: a killed actor neither loses nor doubles a row."""

from __future__ import annotations

import time

import pyarrow.parquet as pq
import pytest

from tests.promises import oracle, undisturbed
from tests.promises.rig import Observer, Rig, kill_workers, seeds

KILLS = 5
MOST = 1.35
"""Wall time with so many kills over that without, at most."""
SHORT, LONG = 1, 30


@pytest.mark.parametrize("seed", seeds(SHORT, LONG))
def test_kills_of_scoring_workers_lose_and_double_no_row(rig: Rig, seed: int) -> None:
    """The long form also bounds what the kills cost: the same job runs undisturbed just before."""
    source = rig.input(10_000)
    calm_s = None
    if seed >= SHORT:
        output = {"path": str(rig.folder / "calm")}
        calm = rig.start(rig.job(source, seconds_per_item=0.006, name="calm", output=output))
        assert calm.wait() == 0, calm.text()
        calm_s = time.monotonic() - calm.started_at
    job = rig.job(source, seconds_per_item=0.006)
    with Observer(rig.output):
        run = rig.start(job)
        rig.wait_for(lambda: rig.num_parts() >= 1, run)
        kills = kill_workers(run, rig.nodes.workers, seed, KILLS)
        status = run.wait()
    wall_s = time.monotonic() - run.started_at
    print(f"seed {seed}: {kills} kills")
    assert status == 0, run.text()
    assert kills >= KILLS
    if calm_s is not None:
        print(f"wall time {wall_s:.1f} s with {kills} kills, {calm_s:.1f} s without: x {wall_s / calm_s:.2f}")
        assert wall_s <= MOST * calm_s
    oracle.check(rig.output, pq.read_table(source), undisturbed.run(job, rig.folder / "undisturbed"))
