"""Runs a job of any kind from the command line's side: console, log file, signals, exit code."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hfray.errors import INTERRUPTED, HfrayError, SpecError
from hfray.kinds.progress import Progress
from hfray.kinds.report import Report
from hfray.log import quiet as quieted
from hfray.scratch import make_own_folder
from hfray.spec.export import ExportJob
from hfray.spec.kinds import Job
from hfray.spec.score import ScoreJob
from hfray.spec.tokenize import TokenizeJob
from hfray.spec.train import TrainJob


def run_job(job: Job, *, job_path: str = "", restart: bool, retry_errors: bool, debug: bool, quiet: bool) -> int:
    """Runs it and prints what a person wants to see. Returns the exit code; the caller prints a HfrayError."""
    log_path = log_path_of(job.name)
    with quieted(log_path, debug=debug) as console:
        previous = signal.signal(signal.SIGTERM, interrupt)
        try:
            with Progress(console, quiet=quiet) as progress:
                report = _KINDS[job.kind](job, progress, job_path, str(log_path), debug, restart, retry_errors)
        except KeyboardInterrupt:
            if not quiet:
                console.print("interrupted; what is finished is kept, the same command goes on from there")
            return INTERRUPTED
        except HfrayError as error:
            if not isinstance(error, SpecError):  # nothing ran that could have logged
                error.add_note(f"log: {log_path}")
            raise
        finally:
            signal.signal(signal.SIGTERM, previous)
        if not quiet:
            report.summary(console)
    return 0


def _score(
    job: ScoreJob, progress: Progress, job_path: str, log_path: str, debug: bool, restart: bool, retry_errors: bool
) -> Report:
    from hfray.data.lease import refuse_live_holder
    from hfray.data.ledger import Ledger

    refuse_live_holder(Ledger(job.output.path, job.output.format, ""))
    from hfray.kinds.score import ScoreRun  # imports torch: seconds that a refusal does not need

    run = ScoreRun(job, progress, job_path=job_path, log_path=log_path, debug=debug)
    return run.run(restart=restart, retry_errors=retry_errors)


def _tokenize(
    job: TokenizeJob, progress: Progress, job_path: str, log_path: str, debug: bool, restart: bool, retry_errors: bool
) -> Report:
    from hfray.data.lease import refuse_live_holder
    from hfray.data.ledger import Ledger

    refuse_live_holder(Ledger(job.output.path, "parquet", ""))
    if job.mode.name == "tokenizer":
        from hfray.kinds.train_tokenizer import TokenizerRun

        return TokenizerRun(job, progress, job_path=job_path, log_path=log_path, debug=debug).run(
            restart=restart, retry_errors=retry_errors
        )
    from hfray.kinds.tokenize import TokenizeRun

    return TokenizeRun(job, progress, job_path=job_path, log_path=log_path, debug=debug).run(
        restart=restart, retry_errors=retry_errors
    )


def _train(
    job: TrainJob, progress: Progress, job_path: str, log_path: str, debug: bool, restart: bool, retry_errors: bool
) -> Report:
    from hfray.data.lease import refuse_live_holder
    from hfray.data.ledger import Ledger

    refuse_live_holder(Ledger(job.output.path, "parquet", ""))
    from hfray.kinds.train import TrainRun

    run = TrainRun(job, progress, job_path=job_path, log_path=log_path, debug=debug)
    return run.run(restart=restart, retry_errors=retry_errors)


def _export(
    job: ExportJob, progress: Progress, job_path: str, log_path: str, debug: bool, restart: bool, retry_errors: bool
) -> Report:
    from hfray.data.lease import refuse_live_holder
    from hfray.data.ledger import Ledger

    refuse_live_holder(Ledger(job.output.path, "parquet", ""))
    from hfray.kinds.export import ExportRun  # imports torch: seconds that a refusal does not need

    run = ExportRun(job, progress, job_path=job_path, log_path=log_path, debug=debug)
    return run.run(restart=restart, retry_errors=False)  # there are no rows that could have failed


_KINDS: dict[str, Callable[..., Report]] = {
    "score": _score,
    "tokenize": _tokenize,
    "train": _train,
    "export": _export,
}


def log_path_of(name: str) -> Path:
    """A fresh file; on this machine, because the output may be an object store."""
    return make_own_folder() / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.log"


def interrupt(signum: int, frame: Any) -> None:
    """A signal handler: as if Ctrl-C were pressed."""
    raise KeyboardInterrupt
