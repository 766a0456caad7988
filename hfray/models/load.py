"""The only place that loads weights: precision, quantisation, adapters, devices, processors.

Safetensors only, remote code never. Knows nothing of rows or batches.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hfray.errors import EngineError, SpecError
from hfray.models.info import load_config, model_info
from hfray.models.sentence import load_dense, read_sentence_modules
from hfray.models.source import ModelSource, resolve_source
from hfray.spec.sections import ModelSpec
from hfray.tasks.base import ModelInfo, Processor, Task


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the report says of a loaded model. `bytes_before` is what the parameters would take unquantised."""

    path: str
    revision: str | None
    parameters: int
    dtype: str
    quantization: str
    device: str
    bytes_before: int
    bytes_after: int
    adapter: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class LoadedModel:
    """A model ready to run: what an engine takes (model, dense, pad_token_id, device) and what a task takes."""

    model: Any
    dense: Any | None
    pad_token_id: int
    device: torch.device
    processor: Processor
    info: ModelInfo
    facts: ModelFacts


def load_model(
    spec: ModelSpec, task: type[Task], *, labels: Sequence[str] | None = None, source: ModelSource | None = None
) -> LoadedModel:
    """Loads a model with the head of `task`. Raises SpecError for what the author, EngineError for what the
    operator must mend."""
    source = source or resolve_source(spec.path, spec.revision)
    device = pick_device(spec.device)
    dtype = pick_dtype(spec.dtype, device)
    config = load_config(source)
    if labels is not None:
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: index for index, label in enumerate(labels)}
    model = _from_pretrained(spec, task, source, config, device, dtype)
    bytes_before = sum(_logical_size(p) for p in model.parameters()) * dtype.itemsize
    parameters = sum(_logical_size(p) for p in model.parameters())
    if spec.adapter is not None:
        model = _with_adapter(model, spec)
    model.eval()
    modules = read_sentence_modules(source)
    dense = load_dense(source, modules)
    if dense is not None:
        dense = dense.to(device=device, dtype=dtype)
    processor = load_processor(source, task)
    scale, bias = getattr(model, "logit_scale", None), getattr(model, "logit_bias", None)
    return LoadedModel(
        model=model,
        dense=dense,
        pad_token_id=_pad_token_id(config, processor.tokenizer),
        device=device,
        processor=processor,
        info=model_info(
            source,
            config,
            tokenizer=processor.tokenizer,
            labels=labels,
            modules=modules,
            logit_scale=None if scale is None else float(scale.detach().float().exp().reshape(-1)[0]),
            logit_bias=None if bias is None else float(bias.detach().float().reshape(-1)[0]),
        ),
        facts=ModelFacts(
            path=spec.path,
            revision=source.revision,
            parameters=parameters,
            dtype=str(dtype).removeprefix("torch."),
            quantization=spec.quantization,
            device=str(device),
            bytes_before=bytes_before,
            bytes_after=int(model.get_memory_footprint()) if hasattr(model, "get_memory_footprint") else bytes_before,
            adapter=spec.adapter,
        ),
    )


def pick_device(wanted: str) -> torch.device:
    """The GPU that Ray gave this worker, or the CPU."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise EngineError("model.device is cuda, but this worker sees no GPU; set workers.gpus to at least a fraction")
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", 0)


def pick_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 where the hardware multiplies it, else float32: a CPU without AVX512-BF16 or AMX emulates it
    at a tenth of float32's speed."""
    if wanted != "auto":
        return getattr(torch, wanted)  # type: ignore[no-any-return]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def _from_pretrained(
    spec: ModelSpec, task: type[Task], source: ModelSource, config: Any, device: torch.device, dtype: torch.dtype
) -> Any:
    import transformers

    auto_model = task.auto_model
    if auto_model == "AutoModel" and getattr(config, "is_encoder_decoder", False):
        auto_model = "AutoModelForTextEncoding"  # embeddings of a T5 come from its encoder alone
    arguments: dict[str, Any] = {
        "config": config,
        "revision": source.revision or "main",
        "dtype": dtype,
        "use_safetensors": True,
        "trust_remote_code": False,
        "output_loading_info": True,
    }
    if spec.attention != "auto":
        arguments["attn_implementation"] = spec.attention
    if spec.quantization != "none":
        arguments["quantization_config"] = _quantization(spec.quantization, dtype)
        arguments["device_map"] = spec.device_map or {"": device}
    elif spec.device_map is not None:
        arguments["device_map"] = spec.device_map
    try:
        model, report = getattr(transformers, auto_model).from_pretrained(source.path, **arguments)
    except torch.OutOfMemoryError as error:
        raise EngineError(
            f"model {source.name} does not fit on {device}: {str(error).splitlines()[0]}; "
            "use model.quantization, model.device_map: auto with more GPUs per worker, or a smaller model"
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        raise EngineError(f"model {source.name} could not be loaded: {' '.join(str(error).split())[:400]}") from error
    missing = sorted(report.get("missing_keys", ()))
    if missing and auto_model not in ("AutoModel", "AutoModelForTextEncoding") and spec.adapter is None:
        raise SpecError(
            f"model {source.name} lacks weights for task {task.name}: {', '.join(missing[:4])}; they would be random"
        )
    if "device_map" not in arguments:
        model.to(device)
    return model


def _quantization(name: str, dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    if name == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=name, bnb_4bit_compute_dtype=dtype)


def _logical_size(parameter: Any) -> int:
    """Weights a parameter stands for; bitsandbytes packs two 4-bit weights into a byte."""
    state = getattr(parameter, "quant_state", None)
    return int(state.shape.numel()) if state is not None else int(parameter.numel())


def _with_adapter(model: Any, spec: ModelSpec) -> Any:
    from peft import PeftModel

    adapter = resolve_source(spec.adapter or "", spec.adapter_revision, kind="adapter")
    try:
        model = PeftModel.from_pretrained(
            model, adapter.path, revision=adapter.revision or "main", is_trainable=False, use_safetensors=True
        )
    except (ValueError, RuntimeError, KeyError) as error:
        raise SpecError(
            f"adapter {adapter.name} does not fit model {spec.path}: {' '.join(str(error).split())[:300]}"
        ) from error
    return model.merge_and_unload() if spec.merge_adapter and spec.quantization == "none" else model


def load_processor(source: ModelSource, task: type[Task]) -> Processor:
    """The tokenizer, and the image processor where the task looks at images."""
    from transformers import AutoImageProcessor, AutoTokenizer

    revision = source.revision or "main"
    tokenizer = image_processor = None
    try:
        if task.needs_images:
            image_processor = AutoImageProcessor.from_pretrained(
                source.path, revision=revision, trust_remote_code=False, backend="pil"
            )
        if task.needs_text:
            tokenizer = AutoTokenizer.from_pretrained(source.path, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpecError(
            f"model {source.name}: its tokenizer or image processor cannot be loaded: {' '.join(str(error).split())[:300]}"
        ) from error
    return Processor(tokenizer=copy.deepcopy(tokenizer), image_processor=image_processor)


def _pad_token_id(config: Any, tokenizer: Any) -> int:
    """Any valid token does where the model has no padding token: padding is masked and never read."""
    text = getattr(config, "text_config", None) or config
    for candidate in (
        getattr(tokenizer, "pad_token_id", None),
        getattr(text, "pad_token_id", None),
        getattr(tokenizer, "eos_token_id", None),
    ):
        if isinstance(candidate, int):
            return candidate
    return 0
