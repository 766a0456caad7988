"""Where jobs run: on the nodes that they ask for, which come when work waits for them and go when it has ended. Real
raylets, started and ended by Ray's autoscaler."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.promises import oracle
from tests.promises.head import head
from tests.promises.rig import Rig

pytestmark = pytest.mark.slow

MARKET = "ray.io/market-type"
SPOT_GPU = {"resources": {"CPU": 1, "GPU": 1}, "labels": {MARKET: "spot"}}
ON_DEMAND = {"resources": {"CPU": 1}, "labels": {MARKET: "on-demand"}}


def test_a_job_waits_for_the_nodes_that_it_asks_for(tmp_path: Path, faults: Path, model: Path) -> None:
    rig = Rig(tmp_path, cast(Any, None), cast(Any, None), faults, model)
    source = rig.input(2_000)
    job = rig.job(source, name="placed", workers={"gpus": 1, "labels": {MARKET: "spot"}, "max": 2})
    with head(tmp_path, faults, head_cpus=0, node_types={"gpu-spot": SPOT_GPU, "cpu": ON_DEMAND}) as cluster:
        assert [each["is_head_node"] for each in cluster.nodes()] == [True]
        told = cluster.hfray("submit", str(job), "--follow")
        assert "complete" in told
        came = [each for each in cluster.nodes() if not each["is_head_node"]]
        assert came
        assert {each["labels"][MARKET] for each in came} == {"spot"}
        assert all(each["resources_total"]["GPU"] == 1 for each in came)
    oracle.check(rig.output, pq.read_table(source))


@pytest.mark.chaos
def test_training_keeps_off_nodes_that_may_be_taken_away(tmp_path: Path, faults: Path, model: Path) -> None:
    rig = Rig(tmp_path, cast(Any, None), cast(Any, None), faults, model)
    texts = [f"text {number} {'warm' if number % 2 else 'cold'}" for number in range(64)]
    source = tmp_path / "train.parquet"
    pq.write_table(pa.table({"text": texts, "label": ["ab"[number % 2] for number in range(64)]}), source)
    job = rig.job(
        source, seconds_per_item=None, name="tuned", kind="train", shard_rows=None, task="text-classification",
        input={"train": {"path": str(source)}}, global_batch_size=8, trainer={"max_steps": 4}, workers={"min": 1},
    )  # fmt: skip
    spot = {"resources": {"CPU": 2}, "labels": {MARKET: "spot"}}
    with head(tmp_path, faults, head_cpus=0, node_types={"spot": spot, "cpu": ON_DEMAND}) as cluster:
        assert "complete" in cluster.hfray("submit", str(job), "--follow")
        came = [each for each in cluster.nodes() if not each["is_head_node"]]
        assert {each["labels"][MARKET] for each in came} == {"on-demand"}
