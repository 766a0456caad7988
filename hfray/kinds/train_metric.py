"""By which metrics the evaluations of a training run can be compared: those that they have. Knows tasks and fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hfray.errors import SpecError
from hfray.spec.problems import close_or_known
from hfray.spec.train import TrainJob
from hfray.tasks import TASKS
from hfray.training.evaluation import PERPLEXITY_TASKS

REFERENCES = {
    "text-classification": "label",
    "token-classification": "tags",
    "question-answering": "answers",
    "summarization": "target",
    "translation": "target",
    "text2text-generation": "target",
}
"""Task to the column of raw rows that holds what should come out."""


def check_metric(job: TrainJob, trainer: Mapping[str, Any], *, without_rows: str) -> None:
    """without_rows: why there are no rows to answer, so that evaluations have what follows from tokens only; "" if
    there are. Raises SpecError for a `metric_for_best_model` that no evaluation has."""
    wanted = trainer.get("metric_for_best_model")
    if wanted is None:
        return
    task = job.task.name
    known = ["loss", *(["perplexity"] if task in PERPLEXITY_TASKS else [])]
    if task in REFERENCES and not without_rows:
        known += TASKS[task].metric_names
    name = str(wanted).removeprefix("eval_")
    if name not in known:
        reason = f" ({without_rows})" if without_rows else ""
        raise SpecError(
            f"trainer.metric_for_best_model: evaluations of {task} have no {name!r}{reason}"
            f"{close_or_known(name, known)}"
        )
