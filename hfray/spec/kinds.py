"""The kinds of jobs by name; this dict is the only registry."""

from __future__ import annotations

from hfray.spec.export import ExportJob
from hfray.spec.score import ScoreJob
from hfray.spec.sections import InputSpec
from hfray.spec.tokenize import TokenizeJob
from hfray.spec.train import TrainJob

RowsJob = ScoreJob | TokenizeJob
"""A job that reads rows."""
Job = RowsJob | TrainJob | ExportJob
"""Any job."""


def job_kinds() -> dict[str, type[Job]]:
    """Kind to spec class."""
    return {"score": ScoreJob, "tokenize": TokenizeJob, "train": TrainJob, "export": ExportJob}


def inputs_of(job: Job) -> dict[str, InputSpec]:
    """What a job reads, by the key that says so."""
    if isinstance(job, TrainJob):
        parts = {"input.train": job.input.train, "input.validation": job.input.validation}
        return {key: spec for key, spec in parts.items() if spec is not None}
    return {"input": job.input} if isinstance(job, RowsJob) else {}
