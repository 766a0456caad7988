"""The job's task, with what the format of its input puts around it. Knows specs and tasks; not engines, not files."""

from __future__ import annotations

from hfray.spec.score import ScoreJob
from hfray.tasks import TASKS
from hfray.tasks.base import ModelInfo, Processor, Task
from hfray.tasks.openai.batch import BatchRequests


def make_task(job: ScoreJob, processor: Processor, info: ModelInfo) -> Task:
    """Raises SpecError for options that the model cannot do."""
    task = TASKS[job.task.name](job.task, processor, info)
    return BatchRequests(task, served_models(job)) if job.input.format == "openai-batch" else task


def served_models(job: ScoreJob) -> tuple[str, ...]:
    """What a request may call the model: as the job does, and a folder by its name."""
    path = job.model.path
    is_folder = path.startswith((".", "/", "~", "package:"))
    return tuple(dict.fromkeys((path, path.rstrip("/").rpartition("/")[2] if is_folder else path)))
