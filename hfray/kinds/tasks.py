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


def adapters_of_rows(job: ScoreJob) -> tuple[str, ...]:
    """Adapters that rows choose in a column of their own; a request of a batch file names its as the model."""
    return () if job.input.format == "openai-batch" else tuple(job.model.adapters)


def served_models(job: ScoreJob) -> dict[str, str | None]:
    """What a request may call the model, and the adapter that it then gets: as the job does, a folder by its name, and
    each adapter by its own. Where the model is an adapter on a base, a checked job has it as `model.adapter`."""
    own: dict[str, str | None] = {}
    for path in filter(None, (job.model.path, job.model.adapter)):
        own[path] = None
        if path.startswith((".", "/", "~", "package:")):
            own[path.rstrip("/").rpartition("/")[2]] = None
    return own | {name: name for name in job.model.adapters}
