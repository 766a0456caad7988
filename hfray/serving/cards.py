"""What a gateway must know of a model, made where the model is checked. Knows specs and models' configurations; not
Ray, not requests."""

from __future__ import annotations

import re
import time
from pathlib import Path

from hfray.errors import SpecError
from hfray.inference.model_use import CheckedModel
from hfray.models.resolve import ADAPTER_CONFIG
from hfray.serving.messages import Card
from hfray.spec.endpoint import EndpointSpec
from hfray.spec.fields import NAME_PATTERN
from hfray.spec.sections import AdapterSpec, ContinuousEngineSpec
from hfray.tasks import TASKS
from hfray.tasks.base import ModelInfo, Processor


def card_of(spec: EndpointSpec, checked: CheckedModel, processor: Processor, info: ModelInfo) -> Card:
    """Its name is the application's, which only the gateway knows. Raises SpecError for options that the model cannot
    do."""
    task = TASKS[spec.task.name](spec.task, processor, info)
    return Card(
        name="",
        task=spec.task.name,
        options=task.options.model_dump(mode="json"),
        adapters=tuple(checked.adapters),
        has_chat=bool(getattr(processor.tokenizer, "chat_template", None)) and spec.task.name == "text-generation",
        streams=isinstance(checked.engine, ContinuousEngineSpec),
        labels=info.labels,
        max_length=info.max_length,
        limits=spec.limits,
        min_replicas=spec.replicas.min,
        created=int(time.time()),
    )


def with_folder(spec: EndpointSpec) -> EndpointSpec:
    """The endpoint with the adapters of its folder among its others. Raises SpecError for a folder that is not there,
    has none in it, or has one whose files lie elsewhere."""
    if spec.adapters_folder is None:
        return spec
    folder = Path(spec.adapters_folder)
    try:
        found = sorted(each.parent for each in folder.glob(f"*/{ADAPTER_CONFIG}"))
        outside = _outside(folder, found)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise SpecError(f"adapters_folder: {folder} cannot be read: {error}") from None
    if outside is not None:
        raise SpecError(
            f"adapters_folder: {outside} is a link to what lies outside of {folder}; copy it into the folder, or name "
            "the adapter in model.adapters"
        )
    if not found:
        raise SpecError(f"adapters_folder: {folder} has no subfolder with an {ADAPTER_CONFIG}")
    wrong = [each.name for each in found if re.fullmatch(NAME_PATTERN, each.name) is None]
    if wrong:
        raise SpecError(
            f"adapters_folder: {wrong[0]!r} cannot be an adapter's name; use lower-case letters, digits, . _ and -"
        )
    adapters = {each.name: AdapterSpec(path=str(each)) for each in found} | spec.model.adapters
    return spec.model_copy(update={"model": spec.model.model_copy(update={"adapters": adapters})})


def _outside(folder: Path, adapters: list[Path]) -> Path | None:
    """The first link, of an adapter or of a file of one, that leads out of the folder: whoever may write into the
    folder would choose files of the whole machine."""
    root = folder.resolve()
    paths = (path for adapter in adapters for path in (adapter, *sorted(adapter.rglob("*"))))
    return next((path for path in paths if not path.resolve().is_relative_to(root)), None)
