"""The kinds of jobs by name; this dict is the only registry."""

from __future__ import annotations

from hfray.spec.export import ExportJob
from hfray.spec.score import ScoreJob
from hfray.spec.tokenize import TokenizeJob

RowsJob = ScoreJob | TokenizeJob
"""A job that reads rows."""
Job = RowsJob | ExportJob
"""Any job."""


def job_kinds() -> dict[str, type[Job]]:
    """Kind to spec class."""
    return {"score": ScoreJob, "tokenize": TokenizeJob, "export": ExportJob}
