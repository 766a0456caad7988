"""The weights of one LoRA adapter as PEFT saves them (Hu et al. 2021, arXiv:2106.09685), for a model that several
adapters share. Knows adapter files and module names; not who uses an adapter when.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfray.errors import SpecError
from hfray.models.adapter import check_adapter
from hfray.models.source import ModelSource

_PREFIX = "base_model.model."
_LAYER = re.compile(r"(?P<module>.+)\.lora_(?P<half>[AB])\.weight")
_NEUTRAL = {
    "use_dora": False, "lora_bias": False, "bias": "none", "target_parameters": None, "trainable_token_indices": None,
    "layer_replication": None, "alora_invocation_tokens": None,
}  # fmt: skip
"""Settings of PEFT that change what an adapter computes, and the value that keeps it plain LoRA."""


@dataclass(frozen=True, slots=True)
class LoraLayer:
    """Adds `scale * (x A^T) B^T` to what a linear module makes of x. a: [rank, in]; b: [out, rank]."""

    a: Any
    b: Any
    scale: float


@dataclass(frozen=True, slots=True)
class LoraWeights:
    layers: Mapping[str, LoraLayer]
    """By the module's name in the model."""
    heads: Mapping[str, Mapping[str, Any]]
    """Modules that the adapter brings whole: name -> parameter -> tensor."""


def check_lora(adapter: ModelSource, *, generates: bool) -> bool:
    """Whether it brings modules of its own (a head). Raises SpecError unless it is LoRA that can share its model."""
    brings_head = check_adapter(adapter)
    config = adapter.read_json("adapter_config.json") or {}
    kind = str(config.get("peft_type", "LORA"))
    if kind != "LORA":
        raise SpecError(f"adapter {adapter.name}: {kind} cannot share its model; name it alone, as model.adapter")
    strange = [name for name, plain in _NEUTRAL.items() if config.get(name, plain) not in (plain, None, [], {})]
    if strange:
        raise SpecError(
            f"adapter {adapter.name}: {', '.join(strange)} is more than plain LoRA, which alone can share a model; "
            "name it alone, as model.adapter"
        )
    if generates and brings_head:
        raise SpecError(
            f"adapter {adapter.name}: it brings whole modules (modules_to_save), which texts of one batch cannot "
            "choose between; name it alone, as model.adapter"
        )
    return brings_head


def read_lora(adapter: ModelSource, model: Any, device: Any, *, missing: Collection[str] = ()) -> LoraWeights:
    """Reads the weights onto a device, in the model's precision. missing: what it must bring, because the model lacks
    it. Raises SpecError for an adapter that does not fit."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = adapter.read_json("adapter_config.json") or {}
    try:
        saved = load_file(Path(adapter.local_file("adapter_model.safetensors")))
    except (SafetensorError, OSError) as error:
        raise SpecError(f"adapter {adapter.name}: its weights cannot be read: {error}") from error
    modules = dict(model.named_modules())
    dtype = next(each.dtype for each in model.parameters() if each.is_floating_point())  # quantised ones do not
    output = getattr(model, "get_output_embeddings", lambda: None)()
    scores = next((name for name, each in modules.items() if each is output), None)
    halves: dict[str, dict[str, Any]] = {}
    heads: dict[str, dict[str, Any]] = {}
    for key, tensor in saved.items():
        name = key.removeprefix(_PREFIX)
        match = _LAYER.fullmatch(name)
        module, parameter = (match["module"], match["half"]) if match else name.rpartition(".")[::2]
        if scores is not None and name.startswith(f"{scores}."):
            raise SpecError(
                f"adapter {adapter.name}: it changes {scores}, the layer of the scores, which is not computed for "
                "every row; name it alone, as model.adapter"
            )
        if module not in modules or "lora_" in parameter:
            raise SpecError(f"adapter {adapter.name} does not fit the model: it has no place for {name}")
        (halves if match else heads).setdefault(module, {})[parameter] = tensor.to(device, dtype)
    absent = [name for name in missing if name.rpartition(".")[2] not in heads.get(name.rpartition(".")[0], {})]
    if absent:
        raise SpecError(
            f"adapter {adapter.name}: neither it nor the model has weights for {', '.join(absent[:4])}; they would be "
            "random"
        )
    for module, parameters in heads.items():
        _check_head(adapter, modules[module], module, parameters)
    layers = {name: _layer(adapter, config, modules[name], name, pair) for name, pair in halves.items()}
    return LoraWeights(layers, heads)


def _layer(adapter: ModelSource, config: Any, module: Any, name: str, pair: Mapping[str, Any]) -> LoraLayer:
    a, b = pair.get("A"), pair.get("B")
    size = (getattr(module, "in_features", None), getattr(module, "out_features", None))
    if size == (None, None) and hasattr(module, "nf"):  # GPT-2's Conv1D keeps its weight the other way round
        size = (module.nx, module.nf)
    if a is None or b is None or (a.shape[1], b.shape[0]) != size or a.shape[0] != b.shape[1]:
        raise SpecError(f"adapter {adapter.name} does not fit the model: {name} has other sizes, or is no linear layer")
    rank = int(a.shape[0])
    alpha = _of_pattern(config.get("alpha_pattern") or {}, name, config.get("lora_alpha", 8))
    return LoraLayer(a, b, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _of_pattern(patterns: Mapping[str, Any], name: str, default: Any) -> float:
    """A module's own value, by PEFT's rule: the pattern is the name, or its end after a dot."""
    for pattern, value in patterns.items():
        if re.fullmatch(rf"(.*\.)?({pattern})", name):
            return float(value)
    return float(default)


def _check_head(adapter: ModelSource, module: Any, name: str, parameters: Mapping[str, Any]) -> None:
    own = dict(module.named_parameters(recurse=False))
    for parameter, tensor in parameters.items():
        if parameter not in own or own[parameter].shape != tensor.shape:
            raise SpecError(
                f"adapter {adapter.name} does not fit the model: {name}.{parameter} has other sizes; adapters that "
                "rows choose between have the labels of the job"
            )
