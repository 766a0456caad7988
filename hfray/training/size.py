"""How large a model is to its training: parameters of each kind, and the sizes that activations follow from. Knows
configurations; loads no weights: the model is built on torch's meta device, where it takes no memory.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_DECODER_LAYERS = ("decoder_layers", "num_decoder_layers")
_HIDDEN = ("hidden_size", "d_model", "n_embd", "dim")
_MLP = ("intermediate_size", "ffn_dim", "n_inner", "d_ff", "encoder_ffn_dim", "hidden_dim")
_GATES = ("gate_proj", "gate_up_proj", "wi_0")
_HEAD_SIZE = ("head_dim", "d_kv")
_CROSS_ATTENTION = re.compile(r"encoder_attn|encdecattention|cross_?attention|cross_attn", re.IGNORECASE)
_KEYS_VALUES = ("k_proj", "v_proj", "k", "v", "key", "value")
_HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads", "encoder_attention_heads")


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Counts of parameters; a tied one counts once."""

    parameters: int
    """Of the base model with its head."""
    trainable: int
    """Those that get gradients: all of them, or an adapter's and those of the modules trained beside it."""
    linear: int
    """In linear layers below the head: what a 4-bit base holds in 4 bits."""
    largest_module: int
    """Of the module that has most itself: what ZeRO-3 gathers at once."""
    num_layers: int
    hidden_size: int
    num_heads: int
    vocab_size: int
    """Of the logits; 0 for a head that has none for each token of a vocabulary."""

    mlp_elements: int = 0
    """What a layer's MLP keeps of a token for the backward pass: its width twice, or four times where it is gated; 0
    means the usual eight times the hidden size."""
    added: int = 0
    """Beside the base model's: an adapter's, and the copies of modules that are trained with it."""
    adapter: int = 0
    """Of `added`, those of the adapter itself."""
    attention_size: int = 0
    """Width of all heads of a layer together; 0 means the hidden size."""
    encoder_layers: int = 0
    """Of `num_layers`, those of an encoder that a decoder stands beside."""
    encoder_linear: int = 0
    """Of `linear`, those that see the source: such an encoder's, and the keys and values of the attention to it."""


@dataclass(frozen=True, slots=True)
class AdapterShape:
    """LoRA, as far as its size goes. targets: last names of the modules that it stands beside; None: all linear ones
    below the head. trained: last names of modules that are trained whole (a head)."""

    r: int
    targets: Collection[str] | None
    trained: Collection[str] = ()
    dora: bool = False


def size_of(config: Any, auto_model: str, adapter: AdapterShape | None = None) -> ModelSize:
    """Of a Transformers configuration with the head of an auto class. Raises SpecError: there is no such model."""
    from hfray.models.targets import on_meta

    model = on_meta(config, auto_model)
    head = _head_modules(model)
    linear = [(name, module) for name, module in model.named_modules() if _is_linear(module) and module not in head]
    parameters = sum(each.numel() for each in model.parameters())
    text = config.get_text_config()
    lora, whole = (0, 0) if adapter is None else _adapter_parameters(model, linear, adapter)
    added, num_heads = lora + whole, _first(text, _HEADS)
    return ModelSize(
        parameters=parameters,
        trainable=parameters if adapter is None else added,
        linear=sum(module.weight.numel() for _, module in linear),
        largest_module=max(
            sum(each.numel() for each in module.parameters(recurse=False)) for module in model.modules()
        ),
        num_layers=_first(text, _LAYERS) + _first(text, _DECODER_LAYERS, 0) * bool(config.is_encoder_decoder),
        hidden_size=_first(text, _HIDDEN),
        num_heads=num_heads,
        vocab_size=int(text.vocab_size) if model.get_output_embeddings() is not None else 0,
        mlp_elements=_first(text, _MLP, 4 * _first(text, _HIDDEN)) * (4 if _is_gated(model) else 2),
        added=added,
        adapter=lora,
        attention_size=num_heads * _first(text, _HEAD_SIZE, _first(text, _HIDDEN) // num_heads),
        encoder_layers=_first(text, _LAYERS) if config.is_encoder_decoder else 0,
        encoder_linear=_encoder_linear(model, linear) if config.is_encoder_decoder else 0,
    )


def _adapter_parameters(model: Any, linear: list[tuple[str, Any]], adapter: AdapterShape) -> tuple[int, int]:
    """Of the adapter, and of the modules that are trained whole. LoRA has two matrices for a layer, r x inputs and
    outputs x r (Hu et al. 2021, arXiv:2106.09685); DoRA adds a magnitude for each output (Liu et al. 2024,
    arXiv:2402.09353)."""
    chosen = [module for name, module in linear if adapter.targets is None or _last(name) in adapter.targets]
    total: int = sum(adapter.r * sum(module.weight.shape) for module in chosen)
    if adapter.dora:
        total += sum(_outputs(module) for module in chosen)
    trained = [module for name, module in model.named_modules() if _last(name) in adapter.trained]
    return total, sum(int(each.numel()) for module in trained for each in module.parameters())


def _encoder_linear(model: Any, linear: list[tuple[str, Any]]) -> int:
    encoder = {id(module) for module in model.get_encoder().modules()}
    return sum(
        int(module.weight.numel())
        for name, module in linear
        if id(module) in encoder or (_CROSS_ATTENTION.search(name) and _last(name) in _KEYS_VALUES)
    )


def _head_modules(model: Any) -> list[Any]:
    """What bitsandbytes leaves as it is: the output embedding, and the last module that has weights of its own."""
    with_weights = [module for module in model.modules() if list(module.parameters(recurse=False))]
    output = model.get_output_embeddings()
    return [*with_weights[-1:], *([] if output is None else [output])]


def _is_gated(model: Any) -> bool:
    return any(_last(name) in _GATES for name, _ in model.named_modules())


def _is_linear(module: Any) -> bool:
    return type(module).__name__ in ("Linear", "Conv1D") and hasattr(module, "weight")


def _outputs(module: Any) -> int:
    return int(module.weight.shape[1 if type(module).__name__ == "Conv1D" else 0])


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _first(config: Any, names: tuple[str, ...], default: int = 1) -> int:
    found = [getattr(config, name, None) for name in names]
    return next((int(value) for value in found if isinstance(value, int)), default)
