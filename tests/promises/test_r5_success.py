"""R5: `_SUCCESS` if and only if complete. Every other promise is watched in the same way; this one counts."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from tests.promises import oracle
from tests.promises.rig import Observer, Rig

OBSERVATIONS = 200


@pytest.mark.slow
@pytest.mark.parametrize("format", ["jsonl"])
def test_success_never_lies(rig: Rig, format: str) -> None:
    source = rig.input(3_000)
    job = rig.job(source, seconds_per_item=0.002, output={"path": str(rig.output), "format": format})
    with Observer(rig.output) as observer:
        run = rig.start(job)
        rig.wait_for(lambda: rig.num_parts() >= 3, run)
        run.kill()
        assert observer.complete_observations == 0
        rig.run(job)
        rig.wait_for(lambda: observer.observations >= OBSERVATIONS and observer.complete_observations)
    oracle.check(rig.output, pq.read_table(source))
