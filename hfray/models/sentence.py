"""A sentence-transformers folder's own modules: pooling, dense layers, normalisation, prompts, sequence length.

Format: `modules.json` lists the modules in order; each has a folder with a `config.json`
(https://sbert.net/docs/package_reference/sentence_transformer/models.html).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hfray.errors import SpecError
from hfray.models.source import ModelSource

_POOLING_FLAGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
_POOLING_NAMES = {
    "mean": "mean",
    "cls": "cls",
    "max": "max",
    "lasttoken": "last",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
}


@dataclass(frozen=True, slots=True)
class SentenceModules:
    """What the folder says; all None or empty for a plain Transformers model."""

    pooling: str | None = None
    include_prompt: bool = True
    normalize: bool | None = None
    dense: tuple[str, ...] = ()
    """Folders of dense layers, in order."""
    max_seq_length: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None


def read_sentence_modules(source: ModelSource) -> SentenceModules:
    """Raises SpecError for a module that hfray does not know, since leaving it out would give wrong vectors."""
    modules = source.read_json("modules.json")
    if modules is None:
        return SentenceModules()
    pooling: str | None = None
    include_prompt = True
    normalize = False
    dense: list[str] = []
    for module in modules:
        kind = str(module["type"]).rsplit(".", 1)[-1]
        folder = str(module["path"])
        if kind == "Pooling":
            config = source.read_json(f"{folder}/config.json") or {}
            pooling = _pooling_mode(config, source.name)
            include_prompt = bool(config.get("include_prompt", True))
        elif kind == "Dense":
            dense.append(folder)
        elif kind == "Normalize":
            normalize = True
        elif kind != "Transformer":
            raise SpecError(
                f"model {source.name}: its sentence-transformers module {kind} is not supported "
                "(known: Transformer, Pooling, Dense, Normalize)"
            )
    extra = source.read_json("config_sentence_transformers.json") or {}
    prompts: dict[str, str] = {k: v for k, v in (extra.get("prompts") or {}).items() if isinstance(v, str) and v}
    default = extra.get("default_prompt_name")
    bert = source.read_json("sentence_bert_config.json") or {}
    return SentenceModules(
        pooling=pooling,
        include_prompt=include_prompt,
        normalize=normalize,
        dense=tuple(dense),
        max_seq_length=bert.get("max_seq_length"),
        prompts=prompts,
        default_prompt=prompts.get(default) if default else None,
    )


def _pooling_mode(config: Mapping[str, Any], name: str) -> str:
    named = config.get("pooling_mode")
    modes = [named] if isinstance(named, str) else [mode for flag, mode in _POOLING_FLAGS.items() if config.get(flag)]
    modes = [_POOLING_NAMES.get(mode, mode) for mode in modes]
    if len(modes) != 1 or modes[0] == "weightedmean":
        raise SpecError(f"model {name}: its pooling ({', '.join(modes) or 'none'}) is not supported; set task.pooling")
    return str(modes[0])


def load_dense(source: ModelSource, modules: SentenceModules) -> Any | None:
    """The dense layers as one torch module in float32, or None."""
    if not modules.dense:
        return None
    import torch
    from safetensors.torch import load_file

    layers: list[Any] = []
    activations = {"Tanh": torch.nn.Tanh, "Identity": torch.nn.Identity, "ReLU": torch.nn.ReLU, "GELU": torch.nn.GELU}
    for folder in modules.dense:
        config = source.read_json(f"{folder}/config.json") or {}
        weights = f"{folder}/model.safetensors"
        if weights not in source.files:
            raise SpecError(f"model {source.name}: {folder} has no model.safetensors; pickled weights are not loaded")
        linear = torch.nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
        state = {key.removeprefix("linear."): value for key, value in load_file(source.local_file(weights)).items()}
        linear.load_state_dict(state)
        activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rsplit(".", 1)[-1]
        if activation not in activations:
            raise SpecError(f"model {source.name}: dense activation {activation} is not supported")
        layers += [linear, activations[activation]()]
    return torch.nn.Sequential(*layers).eval()
