"""`kind: score`: puts the parts together. Plan, resume, run, finish; returns the report.

Knows every layer below; holds no logic that belongs to one of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from hfray.data.columns import Columns
from hfray.data.lease import Lease
from hfray.data.ledger import Ledger
from hfray.errors import HfrayError
from hfray.inference.totals import Totals
from hfray.kinds.batch_files import write_batch_files
from hfray.kinds.check import Checked, check_columns, check_job, identity_of_model
from hfray.kinds.cluster import Cluster
from hfray.kinds.finish import compute_metrics, write_errors
from hfray.kinds.indexing import index_input
from hfray.kinds.job import JobRun
from hfray.kinds.report import Report
from hfray.kinds.shards import ShardRun
from hfray.kinds.workers import WorkerFactory
from hfray.spec.score import ScoreJob
from hfray.spec.yaml_lines import parse


class ScoreRun(JobRun[ScoreJob]):
    """One run of a score job."""

    _checked: Checked
    _columns: Columns

    def _check(self) -> ScoreJob:
        self._checked = check_job(self._job)
        return self._checked.job

    def _index(self, ledger: Ledger, ray_cluster: Cluster) -> dict[str, Any]:
        self._plan, self._failures = index_input(
            self._job.input, self._job.shard_rows, ledger, ray_cluster, self._progress.phase
        )
        self._columns = check_columns(self._checked, self._plan)
        return {"model": identity_of_model(self._checked.model)}

    def _output(self, fingerprint: str) -> Ledger:
        return Ledger(self._job.output.path, self._job.output.format, fingerprint)

    def _has_more_to_do(self, opening: Ledger) -> bool:
        """Metrics change no answer, so a complete output can still get new ones: nothing is scored again."""
        with contextlib.suppress(HfrayError):
            old = parse(opening.read("spec.yaml").decode(), "spec.yaml").value.get("metrics")
            return self._job.metrics is not None and old != self._job.metrics.model_dump(mode="json")
        return False

    def _work(self, ray_cluster: Cluster, lease: Lease, *, retry_errors: bool) -> Report:
        self._ledger.finish_retry()
        factory = WorkerFactory(self._checked, self._plan, self._ledger)
        self._shards = shards = ShardRun(
            ledger=self._ledger,
            num_shards=self._plan.num_shards,
            method="score",
            make_worker=factory,
            adopt=lambda shard: factory.reader().adopt(shard),
            workers=self._job.workers,
            progress=self._progress,
            phase="scoring",
            input_url=self._plan.indexes[0].file.url,
            check=lambda totals: self._check_totals(totals, self._plan.num_rows),
            failures=self._failures,
        )
        shards.complete(ray_cluster, lease)
        if retry_errors:
            failed = [receipt.shard for receipt in shards.in_order() if receipt.failed]
            if failed:
                self._retry(shards, ray_cluster, lease, failed)
        return self._finish(shards, lease)

    def _retry(self, shards: ShardRun, ray_cluster: Cluster, lease: Lease, failed: list[int]) -> None:
        """Scores failed rows again, then replaces their parts; a crash in between is rolled forward."""
        self._ledger.discard_retry()
        answers = shards.run(ray_cluster, lease, failed, "retry")
        replaced = {receipt.shard: receipt for receipt in answers}  # an answer may come twice from a killed worker
        lease.check()
        self._ledger.begin_retry([receipt.to_json() for receipt in replaced.values()])
        self._ledger.finish_retry()
        shards.replace(replaced)

    def _check_totals(self, totals: Totals, rows: int) -> None:
        self._check_error_rate(totals.failed, rows, totals.error_types)

    def _finish(self, shards: ShardRun, lease: Lease) -> Report:
        self._progress.phase("finishing")
        lease.check()
        receipts = shards.in_order()
        self._check_totals(shards.totals, shards.totals.rows)
        write_errors(self._ledger, receipts, self._columns.schema)
        if self._job.input.format == "openai-batch":
            write_batch_files(self._ledger, receipts)
        metrics = compute_metrics(self._checked, self._ledger, receipts)
        self._refuse_unread_files()
        lease.check()
        report = self._report("complete", "", metrics=metrics)
        self._succeed(report, receipts)
        return report

    def _report(self, status: Any, message: str, metrics: Mapping[str, float] | None = None, **facts: Any) -> Report:
        return super()._report(status, message, task=self._job.task.name, metrics=dict(metrics or {}), **facts)
