"""What can be known of a model without its weights: configuration, head, labels, limits.

Every mistake that a job file can make about a model is found here, in the driver, before a worker starts. Knows
configurations and tasks' needs; loads no weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hfray.errors import SpecError
from hfray.models.adapter import check_adapter
from hfray.models.sentence import SentenceModules, read_sentence_modules
from hfray.models.source import ModelSource
from hfray.tasks import TASKS
from hfray.tasks.base import ModelInfo, Task

_MAPPINGS = {
    "AutoModelForSequenceClassification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "AutoModelForTokenClassification": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    "AutoModelForQuestionAnswering": "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
    "AutoModelForMaskedLM": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "AutoModelForCausalLM": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "AutoModelForSeq2SeqLM": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "AutoModelForImageClassification": "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
}
"""Auto class to the table of Transformers that names its classes by model type."""
_IMAGES = "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES"
_IMAGES_AND_TEXT = "MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES"
_PRETRAINING = "MODEL_FOR_PRETRAINING_MAPPING_NAMES"
_BASE = "MODEL_MAPPING_NAMES"

_OFFSET_POSITIONS = frozenset(
    {
        "camembert",
        "data2vec-text",
        "ibert",
        "longformer",
        "luke",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
"""RoBERTa and its kin number positions from padding_idx + 1 = 2, so two rows of the table are never reached."""
_RELATIVE_POSITIONS = frozenset({"t5", "mt5", "umt5", "longt5", "switch_transformers", "bloom", "xlnet"})
"""No table of positions: what the configuration states is no limit, what the tokenizer states is the trained one."""
_NO_LIMIT = 1_000_000  # tokenizers without a limit carry model_max_length = int(1e30)

_GENERATION_KEYS = (
    "eos_token_id", "forced_bos_token_id", "forced_eos_token_id", "decoder_start_token_id", "task_specific_params",
    "max_length", "max_new_tokens", "min_length", "min_new_tokens", "repetition_penalty", "num_beams",
    "length_penalty", "no_repeat_ngram_size", "early_stopping", "prefix",
)  # fmt: skip


def load_config(source: ModelSource) -> Any:
    """The Transformers configuration. Raises SpecError for one that Transformers cannot use without remote code."""
    if source.kind == "model" and "adapter_config.json" in source.files:
        raise SpecError(
            f"model.path: {source.name} holds a PEFT adapter (adapter_config.json); name it as model.adapter, and its "
            "base model, in a folder of its own, as model.path"
        )
    from transformers import AutoConfig

    source.local_file("config.json")  # the hub's refusals become our errors here
    try:
        return AutoConfig.from_pretrained(source.path, revision=source.revision or "main", trust_remote_code=False)
    except Exception as error:  # a value of a wrong type raises whatever the configuration's class raises
        raise unusable(source, "config.json", error) from None


def set_labels(config: Any, labels: Sequence[str]) -> None:
    """Names of a head's outputs, in their order."""
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}


def unusable(source: ModelSource, what: str, error: Exception) -> SpecError:
    """A part of the model that Transformers cannot use; never repeats its advice to trust remote code."""
    reason = " ".join(str(error).split())
    if "trust_remote_code" in reason or "custom code" in reason:
        return SpecError(
            f"model {source.name}: its {what} needs code from the repository, which hfray does not run; "
            "choose a model that Transformers knows"
        )
    return SpecError(f"model {source.name}: its {what} cannot be used: {reason[:300] or type(error).__name__}")


def check_model(
    source: ModelSource, task: type[Task], *, adapter: ModelSource | None = None, config: Any = None
) -> Any:
    """Safetensors weights and the head that the task needs, or SpecError. Returns the configuration, by default the
    source's own."""
    config = load_config(source) if config is None else config
    if not source.has_safetensors:
        found = [name for name in source.files if name.endswith((".bin", ".pt", ".h5", ".msgpack", ".safetensors"))]
        has = f"only {', '.join(found[:3])}" if found else "no weights"
        raise SpecError(
            f"model {source.name} has {has}; hfray loads model.safetensors only, since pickled weights can run code. "
            "Convert it once with save_pretrained()"
        )
    has_head = _fits(task, config)
    if adapter is not None:
        brings_head = check_adapter(adapter)
        has_head = has_head or (task.auto_model in _MAPPINGS and brings_head)
    if not has_head:
        fits = sorted(name for name, other in TASKS.items() if _fits(other, config))
        hint = f"it can do {', '.join(fits)}" if fits else "no task of hfray can use it"
        kind = ", ".join(config.architectures or ()) or config.model_type
        raise SpecError(f"model {source.name} ({kind}) has no head for task {task.name}; {hint}")
    return config


def _fits(task: type[Task], config: Any) -> bool:
    """Whether the model has what the task needs, as far as its configuration tells."""
    if task.auto_model == "AutoModel":
        if task.needs_images:
            return bool(_classes(_IMAGES_AND_TEXT, config))
        return not (_classes(_IMAGES_AND_TEXT, config) or _classes(_IMAGES, config))
    architectures = set(config.architectures or ())
    heads = set(_classes(_MAPPINGS[task.auto_model], config))
    if not architectures:
        return bool(heads)  # the weights will tell
    if task.auto_model == "AutoModelForMaskedLM":
        heads |= set(_classes(_PRETRAINING, config)) if heads else set()
    if task.auto_model == "AutoModelForSeq2SeqLM" and getattr(config, "tie_word_embeddings", False):
        heads |= set(_classes(_BASE, config)) if heads else set()  # its head is its input embedding
    return bool(heads & architectures)


def _classes(mapping: str, config: Any) -> tuple[str, ...]:
    from transformers.models.auto import modeling_auto

    names = getattr(modeling_auto, mapping).get(config.model_type, ())
    return (names,) if isinstance(names, str) else tuple(names)


def model_info(
    source: ModelSource,
    config: Any,
    *,
    tokenizer: Any = None,
    labels: Sequence[str] | None = None,
    modules: SentenceModules | None = None,
    logit_scale: float | None = None,
    logit_bias: float | None = None,
) -> ModelInfo:
    """What a task may know. `labels` replaces the configuration's own."""
    modules = read_sentence_modules(source) if modules is None else modules
    text = getattr(config, "text_config", None) or config
    if labels is None:
        id2label = getattr(config, "id2label", None) or {}
        labels = [str(id2label[index]) for index in sorted(id2label)]
    return ModelInfo(
        name=source.name,
        model_type=config.model_type,
        architectures=tuple(config.architectures or ()),
        labels=tuple(labels),
        problem_type=getattr(config, "problem_type", None),
        max_length=_max_length(text, tokenizer, modules),
        is_encoder_decoder=bool(getattr(config, "is_encoder_decoder", False)),
        pooling=modules.pooling,
        normalize=modules.normalize,
        include_prompt=modules.include_prompt,
        prompts=dict(modules.prompts),
        default_prompt=modules.default_prompt,
        logit_scale=logit_scale,
        logit_bias=logit_bias,
        generation=_generation_defaults(source, config),
    )


def _max_length(text: Any, tokenizer: Any, modules: SentenceModules) -> int | None:
    """The smaller of what the position table holds and what the tokenizer states; as in sentence-transformers, a
    folder's own `max_seq_length` stands in for the tokenizer's."""
    limits = []
    positions = getattr(text, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0 and text.model_type not in _RELATIVE_POSITIONS:
        limits.append(positions - 2 if text.model_type in _OFFSET_POSITIONS else positions)
    stated = modules.max_seq_length or getattr(tokenizer, "model_max_length", None)
    if isinstance(stated, int) and 0 < stated < _NO_LIMIT:
        limits.append(stated)
    return min(limits, default=None)


def _generation_defaults(source: ModelSource, config: Any) -> dict[str, Any]:
    """generation_config.json over config.json, where older models keep theirs and Transformers 5 no longer looks."""
    defaults: dict[str, Any] = {}
    for place in (
        config.to_dict(),
        source.read_json("config.json") or {},
        source.read_json("generation_config.json") or {},
    ):
        defaults.update({key: place[key] for key in _GENERATION_KEYS if place.get(key) is not None})
    return defaults
