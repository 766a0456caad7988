"""The only place that loads weights, into a class of Transformers: precision, quantisation, device.

Safetensors only, remote code never. Knows files and errors; not adapters, not processors.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal

import torch

from hfray.errors import EngineError, SpecError
from hfray.models.quantization import (
    is_quantized,
    prepare_quantized,
    quantization_config,
    quantization_of,
    spare_odd_layers,
)
from hfray.models.source import ModelSource
from hfray.spec.sections import ModelSpec
from hfray.tasks.base import Task

_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""As safetensors names them."""


def load_weights(
    spec: ModelSpec,
    class_name: str,
    source: ModelSource,
    config: Any,
    device: torch.device,
    dtype: torch.dtype | Literal["auto"],
) -> tuple[Any, list[str]]:
    """The model, and the names of weights that its files lack (or have in another shape, where an adapter is to come:
    its head may have other labels).

    class_name: of Transformers, `AutoModel...` or a model's own; dtype: "auto" is that of the files.
    Raises SpecError for what the author, EngineError for what the operator must mend.
    """
    arguments: dict[str, Any] = {"config": config, "dtype": dtype}
    if spec.attention != "auto":
        arguments["attn_implementation"] = spec.attention
    quantized = spec.quantization != "none" or is_quantized(config)
    if is_quantized(config):
        if spec.quantization != "none":
            raise SpecError(
                f"model.quantization: the weights of {source.name} are quantised already ({quantization_of(config)}); "
                "remove the key, or name the model that they were made of"
            )
        prepare_quantized(config, dtype)
    elif spec.quantization != "none":
        arguments["quantization_config"] = quantization_config(spec, dtype)
    if quantized and class_name == "AutoModel" and _lacks_pooler(source, config):
        arguments["add_pooling_layer"] = False  # one made anew could not be quantised, and no task reads it
    if spec.device_map is not None and device.type == "cuda":
        arguments["device_map"] = spec.device_map
    elif quantized:
        arguments["device_map"] = {"": device}
    remedy = "use model.quantization, model.device_map: auto with more GPUs per worker, or a smaller model"
    model, missing, mismatched = from_pretrained(class_name, source, device, arguments, remedy=remedy)
    if mismatched and spec.adapter is None and not spec.adapters:
        raise SpecError(
            f"model {source.name}: its weights do not have the shapes of its configuration (or of task.labels): "
            f"{', '.join(mismatched[:4])}"
        )
    if class_name == "AutoModel":  # no task reads BERT's pooler, which masked language models lack
        missing = {name for name in missing if not name.startswith("pooler.")}
    if "device_map" not in arguments:
        model.to(device)
    if quantized and device.type == "cpu":
        spare_odd_layers(model)
    return model, sorted(missing)


def from_pretrained(
    class_name: str, source: ModelSource, device: torch.device, arguments: Mapping[str, Any], *, remedy: str
) -> tuple[Any, set[str], list[str]]:
    """What Transformers loads from safetensors, without remote code; the names of weights that are new; and of those
    among them that the files have in another shape. remedy: what to do where it does not fit. Raises SpecError,
    EngineError."""
    import transformers
    from safetensors import SafetensorError

    try:
        model, report = getattr(transformers, class_name).from_pretrained(
            source.path,
            revision=source.revision or "main",
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **arguments,
        )
    except torch.OutOfMemoryError as error:
        raise EngineError(
            f"model {source.name} does not fit on {device}: {str(error).splitlines()[0]}; {remedy}"
        ) from error
    except (ImportError, ValueError) as error:  # an option that this model or this machine does not have
        raise SpecError(f"model {source.name} cannot be loaded so: {reason_of(error)}") from error
    except (OSError, RuntimeError, SafetensorError) as error:
        raise EngineError(f"model {source.name} could not be loaded: {reason_of(error)}") from error
    mismatched = sorted(str(each[0]) for each in report.get("mismatched_keys", ()))
    return model, {*report.get("missing_keys", ()), *mismatched}, mismatched


def _lacks_pooler(source: ModelSource, config: Any) -> bool:
    """Whether the class of the encoder has a pooler that the files do not bring, such as those of a masked language
    model."""
    from safetensors import safe_open
    from transformers import MODEL_MAPPING

    try:
        parameters = inspect.signature(MODEL_MAPPING[type(config)].__init__).parameters
    except KeyError:
        return False
    if "add_pooling_layer" not in parameters:
        return False
    index = source.read_json("model.safetensors.index.json")
    if index is None or "model.safetensors" in source.files:
        with safe_open(source.local_file("model.safetensors"), framework="pt") as file:
            return not any("pooler." in name for name in file.keys())  # noqa: SIM118 (it is no dict)
    return not any("pooler." in name for name in index["weight_map"])


def saved_dtype(source: ModelSource, config: Any) -> torch.dtype:
    """The precision of the weights in the files: the configuration's word, else that of the first floating tensor."""
    if isinstance(getattr(config, "dtype", None), torch.dtype):
        return config.dtype
    from safetensors import safe_open

    name = "model.safetensors"
    if name not in source.files:
        name = sorted((source.read_json("model.safetensors.index.json") or {})["weight_map"].values())[0]
    with safe_open(source.local_file(name), framework="pt") as file:
        found = [_DTYPES.get(file.get_slice(key).get_dtype()) for key in file.keys()]  # noqa: SIM118 (it is no dict)
        return next((dtype for dtype in found if dtype is not None), torch.float32)


def auto_model_of(task: type[Task], config: Any) -> str:
    """The task's auto class; embeddings of a T5 come from its encoder alone."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES

    encoder_decoder = getattr(config, "is_encoder_decoder", False)
    has_encoder_class = config.model_type in MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES
    if task.auto_model == "AutoModel" and encoder_decoder and has_encoder_class:
        return "AutoModelForTextEncoding"
    return task.auto_model


def reason_of(error: Exception) -> str:
    """What a library's error says, in one line."""
    return " ".join(str(error).split())[:400] or type(error).__name__
