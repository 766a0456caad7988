"""What every kind of job does around its work: check, plan, claim the output, resume or refuse, report.

A kind is a subclass that says how its job is checked, what its identity is and what it does; this class knows none of
that. Knows leases, ledgers and reports.
"""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import hfray
from hfray.data.lease import Lease, held_lease
from hfray.data.ledger import Ledger, PartEntry, check_output_is_ours
from hfray.data.plan import Plan
from hfray.errors import DataError, ErrorRateExceeded, HfrayError
from hfray.inference.receipt import Receipt
from hfray.inference.totals import Totals
from hfray.kinds.check import refuse_other_job
from hfray.kinds.cluster import Cluster, cluster
from hfray.kinds.progress import Progress
from hfray.kinds.report import FileFailure, ModelFacts, Report, Session
from hfray.kinds.report_html import render
from hfray.kinds.shards import ShardRun
from hfray.kinds.versions import versions
from hfray.spec.fields import fingerprint, identity_of
from hfray.spec.kinds import Job
from hfray.spec.yaml_lines import dump

J = TypeVar("J", bound=Job)


class JobRun(ABC, Generic[J]):
    """One run of the command, from the checks to the report."""

    def __init__(self, job: J, progress: Progress, *, job_path: str, log_path: str, debug: bool) -> None:
        self._job: J = job
        self._progress = progress
        self._job_path = job_path
        self._log_path = log_path
        self._debug = debug
        self._started_at = time.time()
        self._failures: dict[str, str] = {}
        """Input file to why it cannot be read."""
        self._model: dict[str, Any] | None = None
        self._shards: ShardRun | None = None
        """Those of the output."""
        self._plan: Plan
        self._ledger: Ledger
        self._fingerprint: str

    # -- what a kind says

    @abstractmethod
    def _check(self) -> J:
        """Everything that can be wrong before a worker starts. The job, resolved: hub revisions are commits."""

    @abstractmethod
    def _index(self, ledger: Ledger, ray_cluster: Cluster) -> dict[str, Any]:
        """Sets `_plan` and `_failures`; what the fingerprint holds beside the spec and the input."""

    @abstractmethod
    def _output(self, fingerprint: str) -> Ledger:
        """The ledger of the job's output, once the plan is known."""

    @abstractmethod
    def _work(self, ray_cluster: Cluster, lease: Lease, *, retry_errors: bool) -> Report:
        """Does what is missing and finishes the output."""

    def _has_more_to_do(self, opening: Ledger) -> bool:
        """Whether a complete output still wants something of this job."""
        return False

    # -- the run

    def run(self, *, restart: bool, retry_errors: bool) -> Report:
        """Does what is missing and finishes the output. Raises HfrayError; the parts committed so far stay."""
        self._progress.phase("checking")
        self._job = self._check()
        with cluster(debug=self._debug) as ray_cluster:
            opening = Ledger(self._job.output.path, "parquet", "")
            check_output_is_ours(opening)
            complete = opening.success() is not None and not opening.retry_begun()
            if complete and not self._has_more_to_do(opening) and not restart and not retry_errors:
                self._make_plan(opening, ray_cluster)
                return self._already_complete(opening)
            opening.open_work()
            with held_lease(opening) as lease:
                opening.sweep_temporary()
                self._check_output(opening)
                self._make_plan(opening, ray_cluster)
                self._claim(opening, restart=restart)
                try:
                    return self._work(ray_cluster, lease, retry_errors=retry_errors)
                except BaseException as error:
                    if not lease.lost.is_set():
                        self._save_failed_report(error)
                    raise

    def _make_plan(self, ledger: Ledger, ray_cluster: Cluster) -> None:
        self._progress.phase("indexing")
        more = self._index(ledger, ray_cluster)
        self._progress.total(self._plan.num_rows)
        identity = {"spec": identity_of(self._job), **more, "input": self._plan.input_identity()}
        self._fingerprint = fingerprint(identity)
        self._identity = identity | {"fingerprint": self._fingerprint}
        self._ledger = self._output(self._fingerprint)

    def _check_output(self, opening: Ledger) -> None:
        """Refuses more than foreign parts in the output, before the plan is made, which may take hours."""

    def _claim(self, opening: Ledger, *, restart: bool) -> None:
        """Refuses an output that was begun with another identity; `--restart` clears it first."""
        if restart:
            opening.clear()
        else:
            refuse_other_job(opening, self._identity)
        self._ledger.open(self._identity)
        self._ledger.write("spec.yaml", dump(self._job.model_dump(mode="json")).encode())

    def _already_complete(self, opening: Ledger) -> Report:
        refuse_other_job(opening, self._identity)
        with contextlib.suppress(DataError):
            report = Report.from_json(opening.read("report.json"))
            return report.model_copy(update={"message": "already complete: nothing to do"})
        raise DataError(f"{opening.url} is complete, but its report.json is gone; its parts are untouched")

    # -- the end

    def _check_error_rate(self, failed: int, rows: int, error_types: Mapping[str, int]) -> None:
        """Raises ErrorRateExceeded when so many failed rows are too many of so many rows."""
        job: Any = self._job  # one that reads rows; no other kind asks
        if failed > job.max_error_rate * rows:
            kinds = ", ".join(f"{name} {count:,}" for name, count in list(error_types.items())[:4])
            raise ErrorRateExceeded(
                f"{failed:,} rows failed ({kinds}), more than max_error_rate {job.max_error_rate:g} "
                f"of {rows:,} allows; {self._where_errors_are()}, then mend the data or "
                "raise max_error_rate and run the same command again: finished shards are kept"
            )

    def _where_errors_are(self) -> str:
        return f"look at the column `error` in {self._ledger.url}/data"

    def _refuse_unread_files(self) -> None:
        job: Any = self._job
        if self._failures and not job.input.skip_bad_files:
            files = "\n  ".join(f"{file}: {reason}" for file, reason in list(self._failures.items())[:10])
            raise DataError(
                f"{len(self._failures)} input file(s) could not be read; all others are done:\n  {files}\n"
                "mend them and use --restart, or accept the loss with --set input.skip_bad_files=true"
            )

    def _succeed(self, report: Report, receipts: Sequence[Receipt]) -> None:
        """The report, then `_SUCCESS`, last of all."""
        self._write_report(report)
        entries = [PartEntry(r.shard, r.rows, r.failed, r.size_bytes, r.sha256) for r in receipts]
        extra = {
            "hfray": hfray.__version__,
            "shards": len(receipts) + len(self._shards.unreadable if self._shards else ()),
        }
        self._ledger.write_success(self._fingerprint, entries, self._failures, extra)
        self._ledger.sweep_attempts()

    def _report(self, status: Any, message: str, **facts: Any) -> Report:
        shards = self._shards
        if shards is not None:
            self._model = shards.model or self._model
        return Report.of(
            Totals() if shards is None else shards.totals,
            earlier=self._earlier_sessions(),
            name=self._job.name,
            kind=self._job.kind,
            status=status,
            message=message,
            model=None if self._model is None else ModelFacts(**self._model),
            file_failures=tuple(FileFailure(path=p, message=m) for p, m in self._failures.items()),
            started_at=self._started_at,
            wall_s=time.time() - self._started_at,
            versions=versions(),
            output=self._job.output.path,
            job=self._job_path,
            log=self._log_path,
            fingerprint=self._fingerprint,
            spec=self._ledger.read("spec.yaml").decode(),
            **facts,
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
                self._write_report(self._report("interrupted" if interrupted else "failed", str(error)))
