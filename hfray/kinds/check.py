"""Everything about a score job that can be wrong before a worker starts: model, task, columns, expression, files.

Knows the spec and the first bytes of the files; starts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from hfray.data.columns import Columns
from hfray.data.ledger import Ledger
from hfray.data.plan import Plan
from hfray.errors import SpecError
from hfray.inference.predictor import ADAPTER_COLUMN
from hfray.kinds.engines import choose_engine
from hfray.kinds.rows import columns_of, where_of
from hfray.kinds.tasks import adapters_of_rows, make_task
from hfray.models.info import check_model, model_info
from hfray.models.load import load_processor, resolve_adapters
from hfray.models.lora_weights import check_lora
from hfray.models.resolve import config_of, resolve_model
from hfray.models.source import ModelSource
from hfray.spec.fields import difference
from hfray.spec.score import ScoreJob
from hfray.tasks import TASKS
from hfray.tasks.base import Task


@dataclass(frozen=True, slots=True)
class Checked:
    """What the checks found out and the run needs again."""

    job: ScoreJob
    """Resolved: hub revisions are commits, the engine is chosen."""
    source: ModelSource
    adapter: ModelSource | None
    task_class: type[Task]
    task: Task
    labels: tuple[str, ...] | None
    """The labels that replace the model's own, if the task's options name any."""
    adapters: Mapping[str, ModelSource] = field(default_factory=dict)
    """Those that rows choose between."""

    @property
    def result_type(self) -> pa.DataType:
        return self.task.result_type()


def check_job(job: ScoreJob) -> Checked:
    """Raises SpecError with everything that one look at configuration files can tell."""
    where_of(job)
    task_class = TASKS[job.task.name]
    model = resolve_model(job.model)
    source, adapter = model.source, model.adapter
    adapters = resolve_adapters(job.model)
    heads = [each for each in adapters.values() if check_lora(each, generates=task_class.mode == "generate")]
    brings_head = heads[0] if heads and len(heads) == len(adapters) else adapter
    config = check_model(source, task_class, adapter=brings_head, config=config_of(source, adapter))
    labels = getattr(job.task, "labels", None)
    processor = load_processor(source, task_class, adapter=adapter)
    # The task compares the job's labels with the head's own, unless an adapter brings another head.
    own = labels if brings_head is not None else None
    info = model_info(source, config, tokenizer=processor.tokenizer, labels=own)
    task = make_task(job, processor, info)
    named = {
        name: each.model_copy(update={"revision": adapters[name].revision}) for name, each in job.model.adapters.items()
    }
    pinned = job.model_copy(  # what is saved and run
        update={"engine": choose_engine(job, config), "model": model.spec.model_copy(update={"adapters": named})}
    )
    return Checked(pinned, source, adapter, task_class, task, labels and tuple(labels), adapters)


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
    if job.metrics is not None:
        columns.require([job.metrics.label], "metrics.label")
    return columns


def identity_of_model(checked: Checked) -> dict[str, Any]:
    """What the fingerprint remembers of the weights: the hub commit, or the folder's content."""
    identity: dict[str, Any] = dict(checked.source.identity)
    if checked.adapter is not None:
        identity["adapter"] = dict(checked.adapter.identity)
    if checked.adapters:
        identity["adapters"] = {name: dict(each.identity) for name, each in checked.adapters.items()}
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
