"""A model to be trained: with the head and the labels of its task, its weights trained, random or in 4 bits, and its
adapter in place. Knows configurations, weights and PEFT; not data, not DeepSpeed, not how long anything is trained.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from hfray.errors import SpecError
from hfray.models.info import load_config, set_labels
from hfray.models.quantization import four_bits, import_bitsandbytes
from hfray.models.source import ModelSource
from hfray.models.targets import PEFT_TASKS, Targets
from hfray.models.weights import from_pretrained, reason_of
from hfray.spec.methods import LoraSpec, MethodSpec, QloraSpec
from hfray.spec.problems import close_or_known
from hfray.spec.train import BaseModelSpec

_FREE_KEYS = frozenset({
    "model_type", "dtype", "architectures", "rope_parameters", "rope_scaling", "rope_theta", "decoder_start_token_id",
    "pad_token_id", "bos_token_id", "eos_token_id",
})  # fmt: skip
"""Configuration values that a class may take without naming them among its own."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a model is given a head for. labels: by index; num_labels: where the classes have no names."""

    auto_model: str
    """The Transformers auto class."""
    labels: tuple[str, ...] = ()
    num_labels: int | None = None
    problem_type: str | None = None


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a model from scratch must know of its tokenizer."""

    size: int
    pad_token_id: int | None
    eos_token_id: int | None
    bos_token_id: int | None


def training_config(spec: BaseModelSpec, source: ModelSource | None, head: Head, vocabulary: Vocabulary) -> Any:
    """The Transformers configuration to train with. Raises SpecError: a value of `model.config` that there is not, or
    a model whose vocabulary is smaller than the tokenizer's."""
    if source is not None and "config.json" in source.files:
        config = load_config(source)
        values = dict(spec.config or {})
        if values.get("model_type", config.model_type) != config.model_type:
            config = None
    else:
        config, values = None, dict(spec.config or {})
    if config is None:
        config = _new_config(values, vocabulary)
    else:
        _check_keys(values, config)
        for key, value in values.items():
            setattr(config, key, value)
    if head.labels:
        set_labels(config, head.labels)
    elif head.num_labels is not None and head.num_labels != config.num_labels:
        config.num_labels = head.num_labels
    if head.problem_type is not None:
        config.problem_type = head.problem_type
    text = config.get_text_config()
    if getattr(text, "pad_token_id", None) is None and vocabulary.pad_token_id is not None:
        text.pad_token_id = vocabulary.pad_token_id  # decoders with a classifier look for the last token before it
    if vocabulary.size > (text.vocab_size or 0):
        raise SpecError(
            f"model: its vocabulary has {text.vocab_size:,} entries, but the tokenizer {vocabulary.size:,}; choose the "
            "tokenizer that belongs to it"
        )
    return config


def _new_config(values: Mapping[str, Any], vocabulary: Vocabulary) -> Any:
    from transformers import CONFIG_MAPPING, AutoConfig

    model_type = str(values.get("model_type"))
    if model_type not in CONFIG_MAPPING:
        raise SpecError(
            f"model.config.model_type: unknown architecture {model_type!r}{close_or_known(model_type, CONFIG_MAPPING)}"
        )
    _check_keys(values, AutoConfig.for_model(model_type))
    of_tokenizer = {
        "vocab_size": vocabulary.size,
        "pad_token_id": vocabulary.pad_token_id,
        "eos_token_id": vocabulary.eos_token_id,
        "bos_token_id": vocabulary.bos_token_id,
    }
    own = {key: value for key, value in values.items() if key != "model_type"}
    try:
        return AutoConfig.for_model(model_type, **(of_tokenizer | own))
    except Exception as error:  # each configuration checks its own values in its own way
        raise SpecError(f"model.config: {model_type} does not take it: {reason_of(error)}") from None


def _check_keys(values: Mapping[str, Any], config: Any) -> None:
    known = {*config.to_dict(), *config.attribute_map, *_FREE_KEYS}
    for key in values:
        if key not in known:
            raise SpecError(
                f"model.config.{key}: {config.model_type} has no such value{close_or_known(key, sorted(known))}"
            )


def load_trainable(
    spec: BaseModelSpec,
    method: MethodSpec,
    source: ModelSource | None,
    config: Any,
    auto_model: str,
    *,
    dtype: torch.dtype,
    device: torch.device,
    seed: int,
    targets: Targets | None = None,
    checkpointing: bool = False,
) -> Any:
    """The model on the CPU (in 4 bits: on `device`), with what is to be trained requiring gradients. New weights are
    drawn by `seed`, so that all workers have the same. targets: where an adapter goes, of the methods that have one.

    Raises SpecError or EngineError as `models.load` does.
    """
    torch.manual_seed(seed)
    if spec.config is not None or source is None:
        import transformers

        return getattr(transformers, auto_model).from_config(
            config, dtype=dtype, **({} if spec.attention == "auto" else {"attn_implementation": spec.attention})
        )
    model, missing = _pretrained(spec, method, source, config, auto_model, targets, dtype, device)
    if isinstance(method, LoraSpec) and targets is not None:
        model = _with_adapter(method, model, auto_model, targets, missing, checkpointing)
    return model


def _pretrained(
    spec: BaseModelSpec,
    method: MethodSpec,
    source: ModelSource,
    config: Any,
    auto_model: str,
    targets: Targets | None,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Any, list[str]]:
    """The model, and the names of weights that are new."""
    arguments: dict[str, Any] = {"config": copy.deepcopy(config), "dtype": dtype}
    if spec.attention != "auto":
        arguments["attn_implementation"] = spec.attention
    if isinstance(method, QloraSpec) and targets is not None:
        from transformers.integrations import is_deepspeed_zero3_enabled

        if not is_deepspeed_zero3_enabled():  # which places the weights itself
            arguments["device_map"] = {"": device}
        arguments["quantization_config"] = four_bits(
            method.quantization,
            dtype,
            double=method.double_quantization,
            bnb_4bit_quant_storage=dtype,  # ZeRO-3 partitions floating-point weights only
            llm_int8_skip_modules=[*targets.whole, *targets.head, *targets.output],
        )
    remedy = "use method: qlora, more workers with deepspeed: 3, or a smaller model"
    with _undivided() if _has_other_head(source, config, auto_model) else nullcontext():
        model, new, _ = from_pretrained(auto_model, source, device, arguments, remedy=remedy)
    return model, sorted(new)


def _has_other_head(source: ModelSource, config: Any, auto_model: str) -> bool:
    """Whether the files bring such a head for another number of labels."""
    import transformers

    own = load_config(source)
    head = getattr(transformers, auto_model)._model_mapping[type(config)].__name__
    return head in (own.architectures or ()) and own.num_labels != config.num_labels


@contextmanager
def _undivided() -> Iterator[None]:
    """Each rank loads all weights, which DeepSpeed then divides; where Transformers divides them while it loads, a head
    of another shape is an error."""
    from transformers.integrations import deepspeed

    reference = deepspeed._hf_deepspeed_config_weak_ref
    kept = None if reference is None else reference()
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if kept is not None:
            deepspeed.set_hf_deepspeed_config(kept)


def _with_adapter(
    method: LoraSpec, model: Any, auto_model: str, targets: Targets, missing: Collection[str], checkpointing: bool
) -> Any:
    import_bitsandbytes()
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    # Other new weights (a pooler that the files lack) must be saved with the adapter too, or no one could load it.
    new = {name.rpartition(".")[0] for name in missing} - {""}
    beside = [name for name in new if not any(name == each or name.startswith(f"{each}.") for each in targets.head)]
    whole = tuple(dict.fromkeys([*targets.whole, *sorted(beside)]))
    config = LoraConfig(
        task_type=PEFT_TASKS.get(auto_model),
        r=method.r,
        lora_alpha=method.alpha,
        lora_dropout=method.dropout,
        target_modules="all-linear" if targets.layers is None else list(targets.layers),
        modules_to_save=list(whole) or None,
        use_rslora=method.rslora,
        use_dora=method.dora,
    )
    with warnings.catch_warnings():
        # PEFT asks Transformers by names that Transformers is about to drop.
        warnings.filterwarnings("ignore", message=".*is deprecated.*")
        if isinstance(method, QloraSpec):
            model = prepare_model_for_kbit_training(
                model,
                use_gradient_checkpointing=checkpointing,
                gradient_checkpointing_kwargs={"use_reentrant": False},
            )
        elif checkpointing:
            model.enable_input_require_grads()  # the checkpointed layers' inputs must have gradients to pass on
        try:
            return get_peft_model(model, config)
        except ValueError as error:
            raise SpecError(f"method: PEFT cannot put it on {type(model).__name__}: {reason_of(error)}") from error
