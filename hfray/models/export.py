"""A model saved to a folder that loads as it is: its adapter merged, its weights quantised or in another precision,
and everything that lay beside them. Knows folders and models; not outputs, not Ray.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from hfray.errors import EngineError, SpecError
from hfray.models.adapter import attach_adapter, is_merged
from hfray.models.info import set_labels
from hfray.models.quantization import bytes_in, bytes_now, is_quantized, num_parameters, quantization_of
from hfray.models.resolve import ResolvedModel, config_of, resolve_model, tokenizer_of
from hfray.models.result import AdapterFacts, BaseFacts, ResultFacts, facts_of, write_facts
from hfray.models.result_files import FACTS_FILE, PICKLED, TOKENIZER_FILES, is_licence
from hfray.models.sentence import read_sentence_modules
from hfray.models.source import ModelSource
from hfray.models.targets import PEFT_TASKS
from hfray.models.tokenizers import fingerprint, load_tokenizer, template_hash
from hfray.models.weights import auto_model_of, load_weights, saved_dtype
from hfray.spec.export import ExportModelSpec
from hfray.spec.sections import ModelSpec
from hfray.tasks import TASKS

MAX_SHARD = "5GB"
"""Of one file of weights: replicas load and the hub takes several at once."""
_HEADS = {peft_task: auto_model for auto_model, peft_task in PEFT_TASKS.items()}
"""What PEFT calls the head that an adapter was trained with."""
_WRITTEN = frozenset({"config.json", FACTS_FILE, "README.md", "adapter_config.json", "trainer_state.json"})
"""Files at the top that are made anew, or that tell of another model."""


@dataclass(frozen=True, slots=True)
class ExportSource:
    """What an export works on, found and checked. Picklable."""

    model: ResolvedModel
    class_name: str
    """Of Transformers."""
    labels: tuple[str, ...] | None
    facts: ResultFacts | None
    """What is known of the model or its adapter."""

    def identity(self) -> dict[str, Any]:
        """What the fingerprint remembers of the weights."""
        found: dict[str, Any] = dict(self.model.source.identity)
        if self.model.adapter is not None:
            found["adapter"] = dict(self.model.adapter.identity)
        return found


@dataclass(frozen=True, slots=True)
class Exported:
    """What was saved. `bytes_before` is what the weights would take unquantised in the same dtype, `bytes_after` what
    they take."""

    facts: ResultFacts
    bytes_before: int
    bytes_after: int


def find_export(spec: ExportModelSpec, task: str | None, labels: Sequence[str] | None) -> ExportSource:
    """Everything that can be wrong and that configurations tell. Raises SpecError."""
    model = resolve_model(spec.as_model())
    config = config_of(model.source, model.adapter)
    if not model.source.has_safetensors:
        raise SpecError(f"model.path: {model.source.name} has no safetensors weights; pickled ones are not loaded")
    if is_quantized(config) or is_quantized(config_of(model.source, None)):
        method = quantization_of(config) if is_quantized(config) else quantization_of(config_of(model.source, None))
        if model.adapter is not None:
            raise SpecError(
                f"model.adapter: the weights of {model.source.name} are quantised ({method}), and what is merged into "
                "quantised weights is rounded away; name the unquantised base as model.path, and model.quantization "
                "to quantise after merging"
            )
        raise SpecError(
            f"model.path: the weights of {model.source.name} are quantised already ({method}); export the model that "
            "they were made of"
        )
    facts = facts_of(model.adapter or model.source)
    labels = None if labels is None else tuple(labels)
    return ExportSource(model, _class_name(task, facts, config, model), labels, facts)


def _class_name(task: str | None, facts: ResultFacts | None, config: Any, model: ResolvedModel) -> str:
    """The class whose weights are saved: that of the task, of the training, or of the configuration."""
    import transformers

    if task is not None:
        return auto_model_of(TASKS[task], config)
    adapter = None if model.adapter is None else model.adapter.read_json("adapter_config.json")
    known = None if facts is None else facts.architecture
    for name in (known, _HEADS.get(str((adapter or {}).get("task_type"))), *(config.architectures or ())):
        if name is not None and hasattr(transformers, name):
            return str(name)
    raise SpecError(
        f"model.path: the configuration of {model.source.name} names no class that Transformers has; say the task "
        "whose head it has, such as task: text-classification"
    )


def export_model(
    spec: ExportModelSpec, source: ExportSource, folder: Path, told: Mapping[str, Any], device: torch.device
) -> Exported:
    """Writes the model into an existing empty folder of a local disk, which needs room for it unquantised.

    told: what the job adds to `hfray.json`: name, spec, versions.
    Raises SpecError for what the author, EngineError for what the operator must mend.
    """
    found = source.model
    # Another node may have a package elsewhere.
    found = replace(found, source=found.source.located(), adapter=found.adapter and found.adapter.located())
    try:
        model, dtype = _made(spec, replace(source, model=found), folder, device)
        model.save_pretrained(folder, max_shard_size=MAX_SHARD)
        _copy_beside(found, folder)
        known = {"dtype": str(dtype).removeprefix("torch."), "quantization": spec.quantization, **told}
        facts = _facts(replace(source, model=found), model, folder, known)
        write_facts(folder, facts)
    except OSError as error:
        raise EngineError(f"the model could not be saved to {folder}: {error}") from error
    return Exported(facts, bytes_in(model, dtype), bytes_now(model))


def _made(spec: ExportModelSpec, source: ExportSource, folder: Path, device: torch.device) -> tuple[Any, torch.dtype]:
    """The model as it is to be saved, and its precision. Transformers casts and quantises while it loads, and knows
    what has to stay in float32; so what was merged takes a way over the disk for either."""
    found, config = source.model, _config(source)
    spec_of_source = spec.as_model().model_copy(update={"quantization": spec.quantization})
    dtype = saved_dtype(found.source, config) if spec.dtype == "auto" else getattr(torch, spec.dtype)
    if found.adapter is None:
        return _loaded(spec_of_source, source.class_name, found.source, config, dtype, device), dtype
    model = _merged(source, config, device)
    if spec.quantization == "none" and spec.dtype == "auto":
        return model, model.dtype
    with tempfile.TemporaryDirectory(prefix="merged-", dir=folder.parent) as merged:
        model.save_pretrained(merged, max_shard_size=MAX_SHARD)
        files = tuple(sorted(file.name for file in Path(merged).iterdir()))
        there = replace(found.source, path=merged, revision=None, files=files)
        class_name, config = type(model).__name__, model.config
        del model
        return _loaded(spec_of_source, class_name, there, config, dtype, device), dtype


def _config(source: ExportSource) -> Any:
    config = config_of(source.model.source, source.model.adapter)
    if source.labels is not None:
        set_labels(config, source.labels)
    return config


def _loaded(
    spec: ModelSpec, class_name: str, source: ModelSource, config: Any, dtype: torch.dtype, device: torch.device
) -> Any:
    alone = spec.model_copy(update={"adapter": None})
    model, missing = load_weights(alone, class_name, source, config, device, dtype)
    if missing:
        raise SpecError(
            f"model {source.name} lacks weights of {class_name}: {', '.join(missing[:4])}; they would be random. Say "
            "the task whose head it has"
        )
    return model.eval()


def _merged(source: ExportSource, config: Any, device: torch.device) -> Any:
    """The unquantised model with its adapter merged, in the precision of its files."""
    found = source.model
    model, missing = load_weights(found.spec, source.class_name, found.source, config, device, "auto")
    model = attach_adapter(model, cast(ModelSource, found.adapter), merge=True, missing=missing)
    if not is_merged(model):
        raise SpecError(
            f"model.adapter: {found.spec.adapter} cannot be merged into {found.source.name}: it changes a layer whose "
            "weights another one shares (tied embeddings), or is of a kind that stays apart; score and serve it as it "
            "is"
        )
    return model.eval()


def _copy_beside(found: ResolvedModel, folder: Path) -> None:
    """Tokenizer, processors, generation defaults, sentence-transformers modules and licence, as they are: what reads
    the source reads the export. What an adapter's folder brings goes before its base's."""
    tokenizer = tokenizer_of(found.source, found.adapter)
    own = {} if tokenizer is found.source else {name: tokenizer for name in tokenizer.files if _lies_beside(name)}
    beside = {name: found.source for name in found.source.files if _lies_beside(name)}
    if own:
        beside = {name: source for name, source in beside.items() if name not in TOKENIZER_FILES}
    for layer in read_sentence_modules(found.source).dense:
        beside[layer.weights] = found.source
    for name, source in {**beside, **own}.items():
        target = folder / name
        if name == "generation_config.json" and target.exists():
            continue  # what was saved with the model says the same, in today's words
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.local_file(name), target)


def _lies_beside(name: str) -> bool:
    """Whether a file of a model's folder is neither weights nor made anew."""
    if name.endswith((".safetensors", ".safetensors.index.json", ".py", ".md", ".gguf", ".onnx", *PICKLED)):
        return False
    folders = name.split("/")[:-1]
    if folders:  # of sentence-transformers: 1_Pooling/config.json
        return len(folders) == 1 and folders[0][:1].isdigit() and name.endswith(".json")
    return name not in _WRITTEN and (is_licence(name) or name.endswith((".json", ".txt", ".model", ".spm", ".jinja")))


def _facts(source: ExportSource, model: Any, folder: Path, told: Mapping[str, Any]) -> ResultFacts:
    found, known = source.model, source.facts
    adapter = None
    if found.adapter is not None:
        place = BaseFacts.of(found.adapter)
        method = str((found.adapter.read_json("adapter_config.json") or {}).get("peft_type", "LORA"))
        adapter = AdapterFacts(merged=True, method=method, **place.model_dump())
    elif known is not None:
        adapter = known.adapter
    base = BaseFacts.of(found.source)
    if known is not None and found.adapter is None:
        base = known.base or base
    of_tokenizer: dict[str, Any] = {}
    if TOKENIZER_FILES & {file.name for file in folder.iterdir()}:
        tokenizer = load_tokenizer(tokenizer_of(found.source, found.adapter))
        of_tokenizer["tokenizer_fingerprint"] = fingerprint(tokenizer)
        of_tokenizer["chat_template_fingerprint"] = template_hash(tokenizer)
    id2label = getattr(model.config, "id2label", None) or {}
    kept = {} if known is None else known.model_dump(exclude={"kind", "name", "base", "adapter", "spec"})
    training_spec = "" if known is None else known.training_spec or (known.spec if known.kind == "train" else "")
    return ResultFacts.model_validate(
        kept
        | of_tokenizer
        | {
            "kind": "export",
            "base": base,
            "adapter": adapter,
            "architecture": type(model).__name__,
            "parameters": num_parameters(model),
            "labels": tuple(str(id2label[index]) for index in sorted(id2label)),
            "training_spec": training_spec,
        }
        | dict(told)
    )
