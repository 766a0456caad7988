"""`kind: score`: puts the parts together. Plan, resume, run, finish; returns the exit code.

Knows every layer below; holds no logic that belongs to one of them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import hfray
from hfray.data.columns import Columns
from hfray.data.lease import Lease, held_lease
from hfray.data.ledger import Ledger, PartEntry, check_output_is_ours
from hfray.data.plan import Plan
from hfray.errors import DataError, EngineError, ErrorRateExceeded, HfrayError
from hfray.inference.receipt import Receipt, Totals
from hfray.inference.worker import ShardFailure
from hfray.kinds.check import Checked, check_columns, check_job, identity_of_model, refuse_other_job
from hfray.kinds.cluster import Cluster, as_hfray_error, cluster
from hfray.kinds.finish import compute_metrics, write_errors
from hfray.kinds.indexing import index_input
from hfray.kinds.pool import run_shards
from hfray.kinds.progress import Progress
from hfray.kinds.report import FileFailure, ModelFacts, Report, Session
from hfray.kinds.report_html import render
from hfray.kinds.versions import versions
from hfray.kinds.watch import watched
from hfray.kinds.workers import WorkerFactory
from hfray.spec.fields import fingerprint, identity_of
from hfray.spec.score import ScoreJob
from hfray.spec.yaml_lines import dump, parse

RECEIPTS_EVERY_S = 10.0
ROUNDS = 3  # in which shards are given out whose answers did not come back


class ScoreRun:
    """One run of the command, from the checks to the report."""

    def __init__(self, job: ScoreJob, progress: Progress, *, job_path: str, log_path: str, debug: bool) -> None:
        self._job = job
        self._progress = progress
        self._job_path = job_path
        self._log_path = log_path
        self._debug = debug
        self._started_at = time.time()
        self._totals = Totals()
        self._receipts: dict[int, Receipt] = {}
        self._failures: dict[str, str] = {}
        self._unreadable: set[int] = set()
        self._model: dict[str, Any] | None = None
        self._plan: Plan
        self._checked: Checked
        self._ledger: Ledger
        self._columns: Columns

    def run(self, *, restart: bool, retry_errors: bool) -> Report:
        """Scores what is missing and finishes the output. Raises HfrayError; the parts committed so far stay."""
        self._progress.phase("checking")
        self._checked = check_job(self._job)
        self._job = self._checked.job
        with cluster(debug=self._debug) as ray_cluster:
            opening = Ledger(self._job.output.path, self._job.output.format, "")
            check_output_is_ours(opening)
            complete = opening.success() is not None and not opening.retry_begun()
            if complete and not self._wants_other_metrics(opening) and not restart and not retry_errors:
                self._make_plan(opening, ray_cluster)
                return self._already_complete(opening)
            opening.open_work()
            with held_lease(opening) as lease:
                opening.sweep_temporary()
                self._make_plan(opening, ray_cluster)
                self._claim(opening, restart=restart)
                try:
                    return self._score(ray_cluster, lease, retry_errors=retry_errors)
                except BaseException as error:
                    if not lease.lost.is_set():
                        self._save_failed_report(error)
                    raise

    # -- before the first row

    def _make_plan(self, ledger: Ledger, ray_cluster: Cluster) -> None:
        self._progress.phase("indexing")
        self._plan, self._failures = index_input(
            self._job.input, self._job.shard_rows, ledger, ray_cluster, self._progress.phase
        )
        self._columns = check_columns(self._checked, self._plan)
        self._progress.total(self._plan.num_rows)
        identity = {
            "spec": identity_of(self._job),
            "model": identity_of_model(self._checked),
            "input": self._plan.input_identity(),
        }
        self._fingerprint = fingerprint(identity)
        self._identity = identity | {"fingerprint": self._fingerprint}
        self._ledger = Ledger(self._job.output.path, self._job.output.format, self._fingerprint)
        self._worker_factory = WorkerFactory(self._checked, self._plan, self._ledger)

    def _claim(self, opening: Ledger, *, restart: bool) -> None:
        """Refuses an output that was begun with another identity; `--restart` clears it first."""
        if restart:
            opening.clear()
        else:
            refuse_other_job(opening, self._identity)
        self._ledger.open(self._identity)
        self._ledger.write("spec.yaml", dump(self._job.model_dump(mode="json")).encode())

    def _wants_other_metrics(self, opening: Ledger) -> bool:
        """Metrics change no answer, so a complete output can still get new ones: nothing is scored again."""
        with contextlib.suppress(HfrayError):
            old = parse(opening.read("spec.yaml").decode(), "spec.yaml").value.get("metrics")
            return self._job.metrics is not None and old != self._job.metrics.model_dump(mode="json")
        return False

    def _already_complete(self, opening: Ledger) -> Report:
        refuse_other_job(opening, self._identity)
        with contextlib.suppress(DataError):
            report = Report.from_json(opening.read("report.json"))
            return report.model_copy(update={"message": "already complete: nothing to do"})
        raise DataError(f"{opening.url} is complete, but its report.json is gone; its parts are untouched")

    # -- the run

    def _score(self, ray_cluster: Cluster, lease: Lease, *, retry_errors: bool) -> Report:
        self._ledger.finish_retry()
        missing = self._resume()
        for _ in range(ROUNDS):
            if not missing:
                break
            self._run_shards(ray_cluster, lease, missing, "score")
            # A worker that is killed takes answers with it; what it committed is there all the same.
            missing = self._missing() and self._resume()
        if missing:
            raise EngineError(
                f"{len(missing):,} shards came back without an answer, the first is {missing[0]}; what is finished is "
                "kept: run the same command again"
            )
        if retry_errors:
            failed = [shard for shard, receipt in sorted(self._receipts.items()) if receipt.failed]
            if failed:
                self._retry(ray_cluster, lease, failed)
        return self._finish(lease)

    def _resume(self) -> list[int]:
        """Shards that a worker has to look at: to compute them, or to read the parts again whose receipts were lost."""
        sizes = self._ledger.part_sizes()
        if (last := max(sizes, default=-1)) >= self._plan.num_shards:
            raise DataError(f"{self._ledger.url}/data holds part {last}, but the job has {self._plan.num_shards}")
        for line in self._ledger.load_receipts():
            receipt = Receipt.from_json(line)
            if sizes.get(receipt.shard) == receipt.size_bytes:
                self._take(replace(receipt, adopted=True))
        missing = self._missing()
        if any(shard not in sizes for shard in missing):
            return missing
        reader = self._worker_factory.reader()  # killed between the last commit and the end: no worker is needed
        for shard in missing:
            self._take(reader.adopt(shard))
        return []

    def _missing(self) -> list[int]:
        """Shards without a receipt, but for those that cannot be read."""
        known = self._receipts.keys() | self._unreadable
        return [shard for shard in range(self._plan.num_shards) if shard not in known]

    def _run_shards(self, ray_cluster: Cluster, lease: Lease, shards: list[int], mode: Any) -> list[Receipt]:
        self._progress.phase("starting ray")
        ray_cluster.connect()
        ray_cluster.probe([self._plan.indexes[0].file.url], self._ledger.storage)
        self._progress.phase("starting workers")
        done: list[Receipt] = []
        saved, saved_at = 0, time.monotonic()
        resumed = {"resumed_rows": self._totals.rows, "resumed_failed": self._totals.failed}
        with watched(self._progress, check_start=ray_cluster.check_room, **resumed) as watch:
            answers = run_shards(
                ray_cluster, shards, self._worker_factory, self._job.workers, counter=watch.counter, mode=mode
            )
            try:
                for answer in answers:
                    if isinstance(answer, ShardFailure):
                        self._failures[answer.file] = answer.reason
                        self._unreadable.add(answer.shard)
                        continue
                    done.append(answer)
                    if mode == "score":
                        self._take(answer)
                        if time.monotonic() - saved_at > RECEIPTS_EVERY_S:
                            self._ledger.save_receipts([receipt.to_json() for receipt in done[saved:]])
                            saved, saved_at = len(done), time.monotonic()
                        self._check_error_rate(self._plan.num_rows)
                    if lease.lost.is_set():
                        lease.check()
            except Exception as error:
                raise as_hfray_error(error) from error
            finally:
                answers.close()  # type: ignore[attr-defined]
                if mode == "score":
                    self._ledger.save_receipts([receipt.to_json() for receipt in done[saved:]])
        self._model = watch.model or self._model
        return done

    def _retry(self, ray_cluster: Cluster, lease: Lease, failed: list[int]) -> None:
        """Scores failed rows again, then replaces their parts; a crash in between is rolled forward."""
        self._ledger.discard_retry()
        answers = self._run_shards(ray_cluster, lease, failed, "retry")
        replaced = {receipt.shard: receipt for receipt in answers}  # an answer may come twice from a killed worker
        lease.check()
        self._ledger.begin_retry([receipt.to_json() for receipt in replaced.values()])
        self._ledger.finish_retry()
        self._receipts.update(replaced)
        self._totals = Totals()
        for receipt in self._receipts.values():
            self._totals.add(receipt)

    def _take(self, receipt: Receipt) -> None:
        if receipt.shard not in self._receipts:
            self._receipts[receipt.shard] = receipt
            self._totals.add(receipt)

    def _check_error_rate(self, rows: int) -> None:
        allowed = self._job.max_error_rate * rows
        if self._totals.failed > allowed:
            kinds = ", ".join(f"{name} {count:,}" for name, count in list(self._totals.error_types.items())[:4])
            raise ErrorRateExceeded(
                f"{self._totals.failed:,} rows failed ({kinds}), more than max_error_rate {self._job.max_error_rate:g} "
                f"of {rows:,} allows; look at the column `error` in {self._ledger.url}/data, then mend the data or "
                "raise max_error_rate and run the same command again: finished shards are kept"
            )

    # -- the end

    def _finish(self, lease: Lease) -> Report:
        self._progress.phase("finishing")
        lease.check()
        receipts = [self._receipts[shard] for shard in sorted(self._receipts)]
        self._check_error_rate(self._totals.rows)
        write_errors(self._ledger, receipts, self._columns.schema)
        metrics = compute_metrics(self._checked, self._ledger, receipts)
        if self._failures and not self._job.input.skip_bad_files:
            files = "\n  ".join(f"{file}: {reason}" for file, reason in list(self._failures.items())[:10])
            raise DataError(
                f"{len(self._failures)} input file(s) could not be read; all others are scored:\n  {files}\n"
                "mend them and use --restart, or accept the loss with --set input.skip_bad_files=true"
            )
        lease.check()
        report = self._report("complete", "", metrics)
        self._write_report(report)
        entries = [PartEntry(r.shard, r.rows, r.failed, r.size_bytes, r.sha256) for r in receipts]
        extra = {"hfray": hfray.__version__, "shards": self._plan.num_shards}
        self._ledger.write_success(self._fingerprint, entries, self._failures, extra)
        self._ledger.sweep_attempts()
        return report

    def _report(self, status: Any, message: str, metrics: Mapping[str, float]) -> Report:
        return Report.of(
            self._totals,
            earlier=self._earlier_sessions(),
            name=self._job.name,
            kind=self._job.kind,
            task=self._job.task.name,
            status=status,
            message=message,
            model=None if self._model is None else ModelFacts(**self._model),
            file_failures=tuple(FileFailure(path=p, message=m) for p, m in self._failures.items()),
            started_at=self._started_at,
            wall_s=time.time() - self._started_at,
            metrics=dict(metrics),
            versions=versions(),
            output=self._job.output.path,
            job=self._job_path,
            log=self._log_path,
            fingerprint=self._fingerprint,
            spec=self._ledger.read("spec.yaml").decode(),
        )

    def _earlier_sessions(self) -> tuple[Session, ...]:
        with contextlib.suppress(HfrayError):
            old = Report.from_json(self._ledger.read("report.json"))
            if old.fingerprint == self._fingerprint:
                self._model = self._model or (None if old.model is None else old.model.model_dump())
                return old.sessions
        return ()

    def _write_report(self, report: Report) -> None:
        self._ledger.write("report.json", report.to_json().encode())
        self._ledger.write("report.html", render(report).encode())

    def _save_failed_report(self, error: BaseException) -> None:
        """As far as the disk lets it: the report must not hide the error. A complete output keeps its own report."""
        interrupted = isinstance(error, KeyboardInterrupt)
        with contextlib.suppress(HfrayError, OSError):
            if self._ledger.success() is None:
                self._write_report(self._report("interrupted" if interrupted else "failed", str(error), {}))
