"""A sentence-transformers folder's own modules: pooling, dense layers, normalisation, prompts, sequence length.

Format: `modules.json` lists the modules in order; each has a folder with a `config.json`
(https://sbert.net/docs/package_reference/sentence_transformer/models.html). Knows these files; not the encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hfray.errors import SpecError
from hfray.models.source import ModelSource

_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""How folders saved before sentence-transformers 6 spell `pooling_mode`."""
_POOLING = {"mean": "mean", "cls": "cls", "max": "max", "lasttoken": "last", "mean_sqrt_len_tokens": "mean_sqrt_len"}
"""sentence-transformers' words to those of `types.Pool.mode`."""
_TRANSFORMER_CONFIGS = tuple(
    f"sentence_{family}_config.json"
    for family in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_ACTIVATIONS = ("Tanh", "Identity", "ReLU", "GELU", "SiLU", "Sigmoid")
"""Classes of torch.nn without parameters of their own."""


@dataclass(frozen=True, slots=True)
class DenseLayer:
    """A linear layer and what follows it."""

    weights: str
    """Its safetensors file, within the model."""
    in_features: int
    out_features: int
    bias: bool
    activation: str
    """A class of torch.nn."""


@dataclass(frozen=True, slots=True)
class SentenceModules:
    """What the folder says; all None or empty for a plain Transformers model."""

    pooling: str | None = None
    """A mode in the words of `types.Pool`."""
    include_prompt: bool = True
    normalize: bool | None = None
    dense: tuple[DenseLayer, ...] = ()
    """Applied after pooling, in order."""
    max_seq_length: int | None = None
    lower_case: bool = False
    """Whether texts are lower-cased before the tokenizer's own normalisation."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None


def read_sentence_modules(source: ModelSource) -> SentenceModules:
    """Raises SpecError for a module that hfray does not know, since leaving it out would give wrong vectors."""
    modules = source.read_json("modules.json")
    if modules is None:
        return SentenceModules()
    try:
        return _read(source, modules)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SpecError(
            f"model {source.name}: its sentence-transformers modules cannot be read ({type(error).__name__}: {error})"
        ) from None


def _read(source: ModelSource, modules: Any) -> SentenceModules:
    pooling: str | None = None
    include_prompt = True
    normalize = False
    dense: list[DenseLayer] = []
    for module in modules:
        kind = str(module["type"]).rsplit(".", 1)[-1]
        folder = str(module["path"])
        config = source.read_json(f"{folder}/config.json") or {}
        if kind == "Transformer" and folder:
            raise SpecError(
                f"model {source.name}: its encoder lies in the folder {folder}, an old layout of "
                "sentence-transformers; load it once with SentenceTransformer(...) and save_pretrained() it"
            )
        if kind in ("Dense", "Normalize") and (pooling is None or normalize):
            raise SpecError(
                f"model {source.name}: its sentence-transformers module {kind} comes before Pooling or after "
                "Normalize; hfray pools, applies dense layers, then normalises"
            )
        if config.get("module_input_name") not in (None, "sentence_embedding"):
            raise SpecError(
                f"model {source.name}: its sentence-transformers module {kind} works on {config['module_input_name']}; "
                "hfray has it work on the embedding of the text only"
            )
        if kind == "Pooling":
            pooling = _pooling_mode(config, source.name)
            include_prompt = bool(config.get("include_prompt", True))
        elif kind == "Dense":
            dense.append(_dense_layer(source, folder, config))
        elif kind == "Normalize":
            normalize = True
        elif kind not in ("Transformer", "Dropout"):
            raise SpecError(
                f"model {source.name}: its sentence-transformers module {kind} is not supported "
                "(known: Transformer, Pooling, Dense, Normalize)"
            )
    extra = source.read_json("config_sentence_transformers.json") or {}
    # An empty prompt is known by name, as in sentence-transformers: {"query": "...", "document": ""}.
    prompts = {str(name): str(text or "") for name, text in (extra.get("prompts") or {}).items()}
    encoder: dict[str, Any] = next(filter(None, map(source.read_json, _TRANSFORMER_CONFIGS)), {})
    return SentenceModules(
        pooling=pooling,
        include_prompt=include_prompt,
        normalize=normalize,
        dense=tuple(dense),
        max_seq_length=None if encoder.get("max_seq_length") is None else int(encoder["max_seq_length"]),
        lower_case=bool(encoder.get("do_lower_case")),
        prompts=prompts,
        default_prompt=prompts.get(extra.get("default_prompt_name") or ""),
    )


def _pooling_mode(config: Mapping[str, Any], name: str) -> str:
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for flag, mode in _POOLING_FLAGS.items() if config.get(flag)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else list(modes)
    if len(modes) != 1 or modes[0] not in _POOLING:
        raise SpecError(
            f"model {name}: its pooling ({' and '.join(map(str, modes))}) is not supported; "
            f"known: one of {', '.join(_POOLING)}"
        )
    return _POOLING[modes[0]]


def _dense_layer(source: ModelSource, folder: str, config: Mapping[str, Any]) -> DenseLayer:
    weights = f"{folder}/model.safetensors"
    if weights not in source.files:
        raise SpecError(f"model {source.name}: {folder} has no model.safetensors; pickled weights are not loaded")
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rsplit(".", 1)[-1]
    if activation not in _ACTIVATIONS or config.get("use_residual"):
        what = "a residual connection" if config.get("use_residual") else f"the activation {activation}"
        raise SpecError(
            f"model {source.name}: the dense layer {folder} has {what}, which is not supported "
            f"(known activations: {', '.join(_ACTIVATIONS)})"
        )
    return DenseLayer(
        weights, int(config["in_features"]), int(config["out_features"]), bool(config.get("bias", True)), activation
    )


def load_dense(source: ModelSource, modules: SentenceModules) -> Any | None:
    """The dense layers as one torch module in float32, or None. Raises SpecError for weights that do not fit."""
    if not modules.dense:
        return None
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    layers: list[Any] = []
    for layer in modules.dense:
        linear = torch.nn.Linear(layer.in_features, layer.out_features, bias=layer.bias)
        try:
            state = load_file(source.local_file(layer.weights))
            linear.load_state_dict({key.removeprefix("linear."): value for key, value in state.items()})
        except (RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:300]
            raise SpecError(f"model {source.name}: {layer.weights} does not fit its config.json: {reason}") from None
        layers += [linear, getattr(torch.nn, layer.activation)()]
    return torch.nn.Sequential(*layers).eval()
