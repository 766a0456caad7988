"""R3: the driver is killed; the same command finishes the job, and finished shards are not done again."""

from __future__ import annotations

import random
import time

import pyarrow.parquet as pq
import pytest

from tests.promises import oracle, undisturbed
from tests.promises.rig import Observer, Rig, seeds


@pytest.mark.parametrize("seed", seeds(1, 50))
def test_driver_killed_and_restarted_at_once(rig: Rig, seed: int) -> None:
    dice = random.Random(seed)
    source = rig.input(5_000)
    job = rig.job(source, seconds_per_item=0.002)
    with Observer(rig.output) as observer:
        run = rig.start(job)
        if seed % 4 != 3:  # else before anything is done
            rig.wait_for(lambda: rig.num_parts() >= 1, run)
        time.sleep(dice.uniform(0, 4))
        run.kill()
        before = {name: facts for name, facts in rig.files().items() if name.startswith("data/part-")}
        assert observer.complete_observations == 0 or len(before) == 20
        rig.run(job)
        after = rig.files()
    print(f"seed {seed}: killed with {len(before)} of 20 parts")
    assert {name: after[name] for name in before} == before, "finished shards are kept, not written again"
    oracle.check(rig.output, pq.read_table(source), undisturbed.run(job, rig.folder / "undisturbed"))


@pytest.mark.slow
def test_kills_around_the_commits_that_matter(rig: Rig) -> None:
    """Before and after a part appears, before and after `_SUCCESS` does: five runs of one command, with the real
    model; the last finds nothing to do, changes no file and loads no model."""
    source = rig.input(5_000)
    job = rig.job(source, seconds_per_item=None)
    with Observer(rig.output):
        for point, piece in (("kill-before", "data/part-00000003"), ("kill-after", "data/part-00000012")):
            rig.fault(point, piece)
            assert rig.start(job).wait() == -9
            assert not (rig.output / "_SUCCESS").exists()
        # Workers of the dead run may still write: what they commit is kept as well, at most what was in flight.
        rig.fault("kill-before", "/_SUCCESS")
        assert rig.start(job).wait() == -9
        assert rig.num_parts() == 20
        assert not (rig.output / "_SUCCESS").exists()
        loads = rig.num_loads()
        rig.run(job)
        assert rig.num_loads() == loads, "all parts are there: nothing is computed"
        files = rig.files()
        run = rig.run(job)
        assert "already complete" in run.text()
        assert rig.files() == files
        assert rig.num_loads() == loads
    oracle.check(rig.output, pq.read_table(source), undisturbed.run(job, rig.folder / "undisturbed"))
