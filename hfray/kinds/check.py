"""Everything about a score job that can be wrong before a worker starts: model, task, columns, expression, files.

Knows the spec and the first bytes of the files; starts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from hfray.data.columns import Columns
from hfray.data.ledger import Ledger
from hfray.data.plan import Plan
from hfray.errors import SpecError
from hfray.inference.model_use import CheckedModel, check_use
from hfray.inference.predictor import ADAPTER_COLUMN
from hfray.kinds.rows import columns_of, where_of
from hfray.kinds.tasks import adapters_of_rows, make_task
from hfray.spec.fields import difference
from hfray.spec.score import ScoreJob
from hfray.tasks.base import Task


@dataclass(frozen=True, slots=True)
class Checked:
    """What the checks found out and the run needs again."""

    job: ScoreJob
    """Resolved: hub revisions are commits, the engine is chosen."""
    model: CheckedModel
    task: Task

    @property
    def result_type(self) -> pa.DataType:
        return self.task.result_type()


def check_job(job: ScoreJob) -> Checked:
    """Raises SpecError with everything that one look at configuration files can tell."""
    where_of(job)
    model, processor, info = check_use(job)
    pinned = job.model_copy(update={"engine": model.engine, "model": model.model})  # what is saved and run
    return Checked(pinned, model, make_task(job, processor, info))


def check_columns(checked: Checked, plan: Plan) -> Columns:
    """The renaming, with every column there that task, `where` and `metrics` need. Raises SpecError."""
    job = checked.job
    columns = columns_of(job, plan)
    columns.require(checked.task.required_columns(job.task), f"task {job.task.name}")
    if adapters_of_rows(job):
        columns.require([ADAPTER_COLUMN], "model.adapters")
    if job.input.format == "openai-batch" and len(plan.indexes) > 1:
        raise SpecError(
            f"input.path: {len(plan.indexes)} batch files, whose answers would be in one; make a job of each, as "
            "OpenAI makes a batch of each"
        )
    if job.metrics is not None and job.metrics.label is not None:
        columns.require([job.metrics.label], "metrics.label")
    return columns


def identity_of_model(model: CheckedModel) -> dict[str, Any]:
    """What the fingerprint remembers of the weights: the hub commit, or the folder's content."""
    identity: dict[str, Any] = dict(model.source.identity)
    if model.adapter is not None:
        identity["adapter"] = dict(model.adapter.identity)
    if model.adapters:
        identity["adapters"] = {name: dict(each.identity) for name, each in model.adapters.items()}
    return identity


class OtherJobError(SpecError):
    """The output was begun with another identity."""


def refuse_other_job(ledger: Ledger, identity: Mapping[str, Any]) -> None:
    """Raises OtherJobError, with the difference, when the output was begun with another identity."""
    old = ledger.identity()
    if old is not None and old["fingerprint"] != identity["fingerprint"]:
        changes = difference({**old, "fingerprint": ""}, {**identity, "fingerprint": ""})
        raise OtherJobError(
            f"{ledger.url} was begun with another job:\n  "
            + "\n  ".join(changes[:20])
            + "\nchoose another output.path, or start over with --restart"
        )
