"""What can be known of a model without its weights: configuration, head, labels, limits.

Every mistake that a job file can make about a model is found here, in the driver, before a worker starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hfray.errors import SpecError
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
_NO_LIMIT = 1_000_000  # tokenizers without a limit carry model_max_length = int(1e30)


def load_config(source: ModelSource) -> Any:
    """The Transformers configuration. Raises SpecError for an architecture that needs remote code."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(source.path, revision=source.revision or "main", trust_remote_code=False)
    except (ValueError, KeyError, OSError) as error:
        reason = " ".join(str(error).split())
        if "trust_remote_code" in reason or "custom code" in reason:
            raise SpecError(
                f"model {source.name}: its architecture is code in the repository, which hfray does not run; "
                "choose a model that Transformers knows"
            ) from None
        raise SpecError(f"model {source.name}: its config.json cannot be used: {reason[:300]}") from None


def check_model(source: ModelSource, task: type[Task], *, adapter: ModelSource | None = None) -> Any:
    """Safetensors weights and the head that the task needs, or SpecError. Returns the configuration."""
    if not source.has_safetensors:
        found = [name for name in source.files if name.endswith((".bin", ".pt", ".h5", ".msgpack"))]
        has = f"only {', '.join(found[:3])}" if found else "no weights"
        raise SpecError(
            f"model {source.name}: it has {has}; hfray loads safetensors only, since pickled weights can run code. "
            "Convert it once with save_pretrained()"
        )
    config = load_config(source)
    if adapter is not None:
        if not any(name.endswith("adapter_model.safetensors") for name in adapter.files):
            raise SpecError(f"adapter {adapter.name}: it has no adapter_model.safetensors")
        if adapter.read_json("adapter_config.json") is None:
            raise SpecError(f"adapter {adapter.name}: it has no adapter_config.json, so it is no PEFT adapter")
        return config  # an adapter may bring the head
    head = _head_class(task.auto_model, config.model_type)
    architectures = list(config.architectures or [])
    if task.auto_model in _MAPPINGS and not (set(head) & set(architectures)):
        fits = sorted(
            name
            for name, other in TASKS.items()
            if other.auto_model in _MAPPINGS
            and set(_head_class(other.auto_model, config.model_type)) & set(architectures)
        )
        hint = f"it can do {', '.join(fits)}" if fits else "it has no task head; feature-extraction can use it"
        raise SpecError(
            f"model {source.name} ({', '.join(architectures) or config.model_type}) has no head for task {task.name}; {hint}"
        )
    return config


def _head_class(auto_model: str, model_type: str) -> tuple[str, ...]:
    from transformers.models.auto import modeling_auto

    mapping = _MAPPINGS.get(auto_model)
    if mapping is None:
        return ()
    names = getattr(modeling_auto, mapping).get(model_type, ())
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
        labels = [str(id2label[key]) for key in sorted(id2label)]
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
    limits = []
    positions = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None)
    if isinstance(positions, int) and positions > 0:
        # RoBERTa and its kin number positions from padding_idx + 1, so two of their rows are never reached.
        offset = 2 if text.model_type in _OFFSET_POSITIONS else 0
        limits.append(positions - offset)
    stated = getattr(tokenizer, "model_max_length", None)
    if isinstance(stated, int) and 0 < stated < _NO_LIMIT:
        limits.append(stated)
    if modules.max_seq_length:
        limits.append(int(modules.max_seq_length))
    if text.model_type in _RELATIVE_POSITIONS:
        limits = [limit for limit in limits if limit != positions]
    return min(limits) if limits else None


_OFFSET_POSITIONS = frozenset(
    {
        "roberta",
        "xlm-roberta",
        "camembert",
        "mpnet",
        "longformer",
        "xlm-roberta-xl",
        "roberta-prelayernorm",
        "data2vec-text",
    }
)
_RELATIVE_POSITIONS = frozenset({"t5", "mt5", "umt5", "longt5", "bloom"})


def _generation_defaults(source: ModelSource, config: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {}
    wanted = (
        "eos_token_id", "forced_bos_token_id", "forced_eos_token_id", "decoder_start_token_id", "task_specific_params",
        "max_length", "max_new_tokens", "min_length", "min_new_tokens", "repetition_penalty", "num_beams", "length_penalty", "no_repeat_ngram_size", "early_stopping", "prefix",
    )  # fmt: skip
    for place in (
        config.to_dict(),
        source.read_json("config.json") or {},
        source.read_json("generation_config.json") or {},
    ):
        defaults.update({key: place[key] for key in wanted if place.get(key) is not None})
    return defaults
