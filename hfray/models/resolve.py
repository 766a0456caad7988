"""From what a job says of a model to the folders or commits it stands for: a whole model, a base with an adapter, or an
adapter alone, which names its base itself. Knows files and facts; loads no weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hfray.errors import SpecError
from hfray.models.adapter import check_adapter
from hfray.models.info import load_config, set_labels
from hfray.models.result import ResultFacts, facts_of
from hfray.models.source import ModelSource, resolve_source
from hfray.spec.sections import ModelSpec

ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """What a model's section stands for."""

    spec: ModelSpec
    """The section with every part in its own key, and branches and tags replaced by commits: what is saved and run."""
    source: ModelSource
    """Whose weights."""
    adapter: ModelSource | None
    """What goes on top of them."""


def resolve_model(spec: ModelSpec) -> ResolvedModel:
    """Finds a model and its adapter and pins both. Raises SpecError for what is not there, or is not what the adapter
    was trained on."""
    source = resolve_source(spec.path, spec.revision)
    adapter = None
    if spec.adapter is not None:
        adapter = resolve_source(spec.adapter, spec.adapter_revision, kind="adapter")
    if ADAPTER_CONFIG in source.files:
        if source.has_safetensors:
            raise SpecError(
                f"model.path: {spec.path} holds a whole model and an adapter ({ADAPTER_CONFIG}); which of them? Move "
                "the adapter to a folder of its own, and name it as model.adapter to have both"
            )
        if adapter is not None:
            raise SpecError(
                f"model.adapter: {spec.path} is an adapter itself; merge it into its base first (kind: export), or "
                "name its base as model.path"
            )
        adapter = replace(source, kind="adapter")
        source = _base_of(adapter)
        spec = spec.model_copy(update={"path": source.name, "adapter": adapter.name})
    pins = {"revision": source.revision, "adapter_revision": None if adapter is None else adapter.revision}
    return ResolvedModel(spec.model_copy(update=pins), source, adapter)


def _base_of(adapter: ModelSource) -> ModelSource:
    """What the adapter was trained on: `hfray.json` knows its commit or digest, PEFT's own file only a name."""
    check_adapter(adapter)
    facts = facts_of(adapter)
    if facts is not None and facts.base is not None:
        found: tuple[Any, Any, str | None] = (facts.base.path, facts.base.revision, facts.base.content)
    else:
        config = adapter.read_json(ADAPTER_CONFIG) or {}
        found = (config.get("base_model_name_or_path"), config.get("revision"), None)
    path, revision, content = found
    help = f"name its base as model.path, and {adapter.name} as model.adapter"
    if not isinstance(path, str) or not path:
        raise SpecError(f"model.path: the adapter {adapter.name} does not say what its base model is; {help}")
    if not adapter.is_local and (path.startswith((".", "/", "~")) or path.count("/") > 1):
        raise SpecError(
            f"model.path: the adapter {adapter.name} was trained on {path}, a folder of its author's machine; {help}"
        )
    try:
        base = resolve_source(path, revision)
    except SpecError as error:
        reason = str(error).partition(": ")[2] or str(error)
        raise SpecError(f"model.path: the base model of the adapter {adapter.name}: {reason}; or {help}") from None
    if ADAPTER_CONFIG in base.files:
        raise SpecError(
            f"model.path: the base of the adapter {adapter.name} is an adapter too ({path}); merge that one into its "
            "base first (kind: export)"
        )
    if content is not None and base.identity.get("content") != content:
        raise SpecError(
            f"model.path: {path} has changed since the adapter {adapter.name} was trained on it; restore it, or, if "
            f"the change does no harm, {help}"
        )
    return base


def config_of(source: ModelSource, adapter: ModelSource | None) -> Any:
    """The Transformers configuration: that of the adapter's folder if hfray made it (labels and padding are those of
    the training), else the base's. Raises SpecError for one that cannot be used."""
    facts = _facts(adapter)
    if adapter is None or facts is None:
        return load_config(source)
    if "config.json" in adapter.files:
        return load_config(adapter)
    config = load_config(source)
    if facts.labels:
        set_labels(config, facts.labels)
    return config


def tokenizer_of(source: ModelSource, adapter: ModelSource | None) -> ModelSource:
    """Where the tokenizer is: beside an adapter that hfray trained, else beside the weights."""
    has_tokenizer = adapter is not None and bool({"tokenizer.json", "tokenizer_config.json"} & set(adapter.files))
    return adapter if adapter is not None and has_tokenizer and _facts(adapter) is not None else source


def _facts(adapter: ModelSource | None) -> ResultFacts | None:
    return None if adapter is None else facts_of(adapter)
