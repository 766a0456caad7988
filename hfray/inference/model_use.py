"""A model for a task, checked by its configuration files and then loaded: the same for the workers of a job and the
replicas of an endpoint. Knows specs, models, tasks and engines; not rows, not job files, not Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hfray.engines.base import Engine
from hfray.engines.threads import in_brief_thread
from hfray.inference.engines import ModelUse, choose_engine, make_engine
from hfray.models.info import check_model, model_info
from hfray.models.load import LoadedModel, load_model, load_processor, resolve_adapters
from hfray.models.lora_weights import check_lora
from hfray.models.resolve import config_of, resolve_model
from hfray.models.source import ModelSource
from hfray.spec.sections import EngineSpec, FakeEngineSpec, ModelSpec
from hfray.tasks import TASKS
from hfray.tasks.base import ModelInfo, Processor, TaskOptions


@dataclass(frozen=True, slots=True)
class CheckedModel:
    """What one look at configuration files found; travels to where the model is loaded."""

    model: ModelSpec
    """Pinned: hub revisions are commits."""
    task: TaskOptions
    engine: EngineSpec
    """Chosen."""
    source: ModelSource
    adapter: ModelSource | None
    labels: tuple[str, ...] | None
    """The labels that replace the model's own, if the task's options name any."""
    adapters: Mapping[str, ModelSource] = field(default_factory=dict)
    """Those that rows choose between."""


@dataclass(frozen=True, slots=True)
class ReadyModel:
    """A model that answers."""

    engine: Engine
    processor: Processor
    info: ModelInfo
    facts: dict[str, Any]
    """What a report says of it; empty for an engine without a model."""


def check_use(use: ModelUse) -> tuple[CheckedModel, Processor, ModelInfo]:
    """Raises SpecError with everything that configuration files can tell. Loads no weights."""
    task_class = TASKS[use.task.name]
    resolved = resolve_model(use.model)
    source, adapter = resolved.source, resolved.adapter
    adapters = resolve_adapters(use.model)
    heads = [each for each in adapters.values() if check_lora(each, generates=task_class.mode == "generate")]
    brings_head = heads[0] if heads and len(heads) == len(adapters) else adapter
    config = check_model(source, task_class, adapter=brings_head, config=config_of(source, adapter))
    labels = getattr(use.task, "labels", None)
    processor = load_processor(source, task_class, adapter=adapter)
    # The task compares the job's labels with the head's own, unless an adapter brings another head.
    own = labels if brings_head is not None else None
    info = model_info(source, config, tokenizer=processor.tokenizer, labels=own)
    named = {
        name: each.model_copy(update={"revision": adapters[name].revision}) for name, each in use.model.adapters.items()
    }
    checked = CheckedModel(
        model=resolved.spec.model_copy(update={"adapters": named}),
        task=use.task,
        engine=choose_engine(use, config),
        source=source,
        adapter=adapter,
        labels=labels and tuple(labels),
        adapters=adapters,
    )
    return checked, processor, info


def load_use(
    checked: CheckedModel,
    *,
    device_share: float = 1.0,
    online: bool = False,
    loaded: Callable[[dict[str, Any]], None] = lambda facts: None,
) -> ReadyModel:
    """Loads what was checked, perhaps on another node. Raises SpecError for a model that cannot be run so, EngineError
    for a device or memory that is not there.

    device_share, online: see `make_engine`. loaded: told of the model's facts.
    """
    task_class = TASKS[checked.task.name]
    source = checked.source.located()
    adapter = None if checked.adapter is None else checked.adapter.located()
    if isinstance(checked.engine, FakeEngineSpec):
        from hfray.engines.fake import FakeEngine

        processor = load_processor(source, task_class, adapter=adapter)
        info = model_info(source, config_of(source, adapter), tokenizer=processor.tokenizer, labels=checked.labels)
        fake = FakeEngine(num_labels=len(info.labels), seconds_per_item=checked.engine.seconds_per_item)
        return ReadyModel(fake, processor, info, {})

    def start() -> tuple[LoadedModel, Engine]:
        model = load_model(
            checked.model, task_class, labels=checked.labels, source=source, adapter=adapter, adapters=checked.adapters
        )
        return model, make_engine(checked.engine, model, device_share=device_share, online=online)

    model, engine = in_brief_thread(start)
    facts = model.facts.as_dict()
    loaded(facts)
    return ReadyModel(engine, model.processor, model.info, facts)
