"""A pool grows from `workers.min` to `workers.max` while there is work, and what it scores is the same."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from tests.promises import oracle, undisturbed
from tests.promises.rig import Rig


@pytest.mark.slow
def test_a_pool_grows_while_there_is_work(rig: Rig) -> None:
    source = rig.input(3_000)
    job = rig.job(source, seconds_per_item=0.03, workers={"min": 1, "max": 2})  # 90 s: a worker may start slowly
    rig.run(job)
    report = json.loads((rig.output / "report.json").read_text())
    assert report["workers"] == 2
    oracle.check(rig.output, pq.read_table(source), undisturbed.run(job, rig.folder / "undisturbed"))
