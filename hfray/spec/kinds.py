"""The kinds of jobs by name; this dict is the only registry."""

from __future__ import annotations

from hfray.spec.score import ScoreJob

Job = ScoreJob
"""Any job."""


def job_kinds() -> dict[str, type[Job]]:
    """Kind to spec class."""
    return {"score": ScoreJob}
