"""A model ready to run: weights, adapter, device, processor, and what a task may know of it. Knows nothing of rows or
batches.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hfray.errors import EngineError, SpecError
from hfray.models.adapter import attach_adapter
from hfray.models.info import model_info, set_labels, unusable
from hfray.models.lora import AdapterBank
from hfray.models.quantization import bytes_in, bytes_now, num_parameters, quantization_of
from hfray.models.resolve import config_of, resolve_model, tokenizer_of
from hfray.models.sentence import load_dense, read_sentence_modules
from hfray.models.source import ModelSource, resolve_source
from hfray.models.tokenizers import load_tokenizer
from hfray.models.weights import auto_model_of, load_weights
from hfray.spec.sections import ModelSpec
from hfray.tasks.base import ModelInfo, Processor, Task


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the report says of a loaded model. `bytes_before` is what its weights would take unquantised in `dtype`,
    `bytes_after` what they take."""

    path: str
    revision: str | None
    parameters: int
    dtype: str
    quantization: str
    device: str
    bytes_before: int
    bytes_after: int
    adapter: str | None = None
    architecture: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class LoadedModel:
    """A model ready to run: what an engine takes (model, dense, pad_token_id, device) and what a task takes."""

    model: Any
    """A Transformers model in evaluation mode; an attached adapter's layers are inside it."""
    dense: Any | None
    """A sentence-transformers folder's own layers after pooling."""
    pad_token_id: int
    device: torch.device
    processor: Processor
    info: ModelInfo
    facts: ModelFacts
    adapters: AdapterBank | None = None
    """Adapters that items choose between."""


def load_model(
    spec: ModelSpec,
    task: type[Task],
    *,
    labels: Sequence[str] | None = None,
    source: ModelSource | None = None,
    adapter: ModelSource | None = None,
    adapters: Mapping[str, ModelSource] | None = None,
) -> LoadedModel:
    """Loads a model with the head of `task`. Raises SpecError for what the author, EngineError for what the
    operator must mend.

    labels: names in place of the model's own, one for each output of its head.
    source, adapter: what `resolve_model` found, where it has been asked already; `spec` is then the one that it gave.
    adapters: what `resolve_adapters` found for `spec.adapters`.
    """
    if source is None:
        resolved = resolve_model(spec)
        spec, source, adapter = resolved.spec, resolved.source, resolved.adapter
    device = pick_device(spec.device)
    dtype = pick_dtype(spec.dtype, device)
    config = config_of(source, adapter)
    if labels is not None:
        set_labels(config, labels)
    modules = read_sentence_modules(source)
    processor = load_processor(source, task, adapter=adapter)
    pad_token_id = _pad_token_id(config, processor.tokenizer)
    model, missing = load_weights(spec, auto_model_of(task, config), source, config, device, dtype)
    if adapter is not None:
        merge = spec.merge_adapter and quantization_of(model.config) == "none"
        model = attach_adapter(model, adapter, merge=merge, missing=missing)
    elif missing and not spec.adapters:
        raise SpecError(
            f"model {source.name} lacks weights for task {task.name}: {', '.join(missing[:4])}; they would be random"
        )
    model.eval()
    # Decoders with a classifier look for the last token that is not this one.
    if getattr(model.config, "pad_token_id", None) is None:
        model.config.pad_token_id = pad_token_id
    dense = load_dense(source, modules)
    if adapters is None:
        adapters = resolve_adapters(spec)
    bank = None
    if adapters:
        bank = AdapterBank(model, adapters, device=device, max_loaded=spec.max_adapters, missing=missing)
    return LoadedModel(
        model=model,
        dense=None if dense is None else dense.to(device=device, dtype=dtype),
        pad_token_id=pad_token_id,
        device=device,
        processor=processor,
        info=model_info(
            source,
            config,
            tokenizer=processor.tokenizer,
            labels=labels,
            modules=modules,
            logit_scale=_scalar(getattr(model, "logit_scale", None), exp=True),
            logit_bias=_scalar(getattr(model, "logit_bias", None)),
        ),
        facts=ModelFacts(
            path=spec.path,
            revision=source.revision,
            parameters=num_parameters(model),
            dtype=str(dtype).removeprefix("torch."),
            quantization=quantization_of(model.config),
            device=str(device),
            bytes_before=bytes_in(model, dtype),
            bytes_after=bytes_now(model),
            adapter=spec.adapter,
            architecture=type(model).__name__,
        ),
        adapters=bank,
    )


def resolve_adapters(spec: ModelSpec) -> dict[str, ModelSource]:
    """The sources of a model's named adapters, pinned."""
    return {name: resolve_source(each.path, each.revision, kind="adapter") for name, each in spec.adapters.items()}


def pick_device(wanted: str) -> torch.device:
    """The GPU that Ray gave this worker, or the CPU."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise EngineError("model.device is cuda, but this worker sees no GPU; set workers.gpus to at least a fraction")
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", 0)


def pick_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 where the hardware multiplies it, else float32."""
    if wanted != "auto":
        return getattr(torch, wanted)
    return torch.bfloat16 if _multiplies_bfloat16(device) else torch.float32


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if platform.machine().lower() in ("x86_64", "amd64"):
        # oneDNN says yes to any AVX-512, but without these instructions it emulates at a fraction of float32's speed.
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def load_processor(source: ModelSource, task: type[Task], *, adapter: ModelSource | None = None) -> Processor:
    """The tokenizer, and the image processor where the task looks at images. Raises SpecError if the model lacks
    one. An adapter that hfray trained may bring its own tokenizer."""
    tokenizer = image_processor = None
    if task.needs_images:
        from transformers import AutoImageProcessor  # seconds to import, which a text job is spared

        where = {"revision": source.revision or "main", "trust_remote_code": False}
        try:
            image_processor = AutoImageProcessor.from_pretrained(source.path, backend="pil", **where)
        except Exception as error:  # whatever the processor's own class raises for the files it finds
            raise unusable(source, "image processor", error) from error
    if task.needs_text:
        tokenizer = load_tokenizer(tokenizer_of(source, adapter))
        if task.auto_model == "AutoModel" and read_sentence_modules(source).lower_case:
            _lower_case(tokenizer)
    return Processor(tokenizer=tokenizer, image_processor=image_processor)


def _lower_case(tokenizer: Any) -> None:
    from tokenizers.normalizers import Lowercase, Sequence

    backend = tokenizer.backend_tokenizer
    backend.normalizer = Sequence([Lowercase(), *([backend.normalizer] if backend.normalizer is not None else [])])


def _scalar(parameter: Any, *, exp: bool = False) -> float | None:
    if not isinstance(parameter, torch.Tensor):  # of Cohere's decoders it is a plain number, and another thing
        return None
    value = parameter.detach().float().reshape(-1)[0]
    return float(value.exp() if exp else value)


def _pad_token_id(config: Any, tokenizer: Any) -> int:
    """Padding is masked and never read, so any token of the vocabulary does where the model has none of its own.

    The configuration's goes first: it is in the model's vocabulary for sure, and decoders with a classifier look for
    it.
    """
    text = getattr(config, "text_config", None) or config
    vocab_size = getattr(text, "vocab_size", None) or 0
    for candidate in (
        getattr(text, "pad_token_id", None),
        getattr(tokenizer, "pad_token_id", None),
        getattr(tokenizer, "eos_token_id", None),
    ):
        if isinstance(candidate, int) and 0 <= candidate < vocab_size:
            return candidate
    return 0
