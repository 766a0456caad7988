"""R4: two runs of one job never mix. The lease saves work; the ledger alone gives correctness."""

from __future__ import annotations

import signal
import time

import pyarrow.parquet as pq
import pytest

from tests.promises import oracle, undisturbed
from tests.promises.rig import Observer, Rig, Run, seeds, within

ANSWER_S = 5.0


@pytest.mark.parametrize("seed", seeds(1, 20))
def test_of_two_starters_one_goes_home_and_names_the_other(rig: Rig, seed: int) -> None:
    source = rig.input(3_000)
    job = rig.job(source, seconds_per_item=0.002)
    with Observer(rig.output):
        runs = [rig.start(job), rig.start(job)]
        first, second = sorted(zip([each.wait() for each in runs], runs, strict=True), key=lambda pair: pair[0])
    assert (first[0], second[0]) == (0, 6), "\n".join(each.why() for each in runs)
    assert f"process {first[1].pid} on " in second[1].text()
    assert "another run of this job" in second[1].text()
    oracle.check(rig.output, pq.read_table(source), undisturbed.run(job, rig.folder / "undisturbed"))
    other = rig.job(source, seconds_per_item=0.002, task={"name": "text-classification", "top_k": 1})
    refused = rig.run(other, code=2)
    assert "top_k" in refused.text()
    assert "--restart" in refused.text()


@pytest.mark.parametrize("seed", seeds(1, 10))
def test_a_frozen_run_is_taken_over_and_changes_nothing_when_it_wakes(rig: Rig, seed: int) -> None:
    source = rig.input(4_000)
    job = rig.job(source, seconds_per_item=0.003)
    with Observer(rig.output):
        frozen = rig.start(job)
        rig.wait_for(lambda: rig.num_parts() >= 1, frozen)
        sleepers = [each for each in rig.nodes.workers() if seed % 2]
        for process in sleepers:
            process.send_signal(signal.SIGSTOP)
        frozen.kill(signal.SIGSTOP)
        rig.run(job, local=True)  # the frozen run's actors keep the cluster's CPUs
        files = {name: facts for name, facts in rig.files().items() if not name.startswith("_work/")}
        for process in sleepers:
            process.send_signal(signal.SIGCONT)
        frozen.kill(signal.SIGCONT)
        assert frozen.wait() == 6, frozen.text()
        assert "taken over" in frozen.text()
    assert {name: facts for name, facts in rig.files().items() if not name.startswith("_work/")} == files
    oracle.check(rig.output, pq.read_table(source), undisturbed.run(job, rig.folder / "undisturbed"))


@pytest.mark.slow
def test_a_held_lease_answers_within_seconds_and_a_dead_one_is_taken_over(rig: Rig) -> None:
    source = rig.input(2_000)
    job = rig.job(source, seconds_per_item=0.002)
    first = rig.start(job)
    rig.wait_for(lambda: (rig.output / "_work" / "lease.json").exists(), first)
    second = rig.start(job)  # without the second or two that Python and the command line take to start
    assert second.wait() == 6
    waited_s = time.monotonic() - second.started_at
    print(f"the second starter answered {waited_s:.1f} s after its start")
    assert waited_s < within(ANSWER_S)
    first.kill()
    rig.run(job)
    oracle.check(rig.output, pq.read_table(source))


@pytest.mark.parametrize("seed", seeds(1, 20))
def test_without_the_lease_the_ledger_gives_correctness(rig: Rig, seed: int) -> None:
    rig.fault("no-lease", "x")
    source = rig.input(3_000)
    job = rig.job(source, seconds_per_item=0.002, workers={"max": 1})
    with Observer(rig.output):
        runs: list[Run] = []
        for _ in range(2):
            runs.append(rig.start(job))
            time.sleep(seed % 5)
        statuses = [each.wait() for each in runs]
    assert statuses == [0, 0], "\n".join(each.why() for each in runs)
    oracle.check(rig.output, pq.read_table(source), undisturbed.run(job, rig.folder / "undisturbed"))
