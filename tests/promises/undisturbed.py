"""The same job without Ray, kills or a second thread: what every disturbed run is compared with."""

from __future__ import annotations

from pathlib import Path

import torch

from hfray.data.ledger import Ledger
from hfray.inference.receipt import Receipt
from hfray.kinds.check import check_job
from hfray.kinds.cluster import Cluster
from hfray.kinds.indexing import index_input
from hfray.kinds.workers import WorkerFactory
from hfray.spec.load import load_job


def run(job_path: Path, output: Path) -> Path:
    """Scores every shard in this thread; returns the folder."""
    torch.set_num_threads(1)
    checked = check_job(load_job(job_path, ["engine.seconds_per_item=0"] if "fake" in job_path.read_text() else []))
    opening = Ledger(str(output), checked.job.output.format, "")
    plan, _ = index_input(checked.job.input, checked.job.shard_rows, opening, Cluster(), lambda phase: None)
    ledger = Ledger(str(output), checked.job.output.format, "undisturbed")
    ledger.open({"fingerprint": "undisturbed"})
    worker = WorkerFactory(checked, plan, ledger)(lambda tick: None, lambda facts: None)
    for shard in range(plan.num_shards):
        assert isinstance(worker.score(shard), Receipt)
    worker.predictor.engine.close()
    return output
