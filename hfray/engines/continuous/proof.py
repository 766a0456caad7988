"""Whether a model can be run over packed rows at all, shown by running it. Knows models; not requests.

Most of Transformers' decoder-only models call a registered attention function and take positions as they are given.
Those that do not (recurrent states, attention biases of their own, masks that no argument describes) would answer
wrongly without a word, so each model proves itself when its engine is made.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch

from hfray.engines.continuous.attention import Call, LayerShape, attending
from hfray.engines.continuous.rotation import long_from
from hfray.errors import SpecError

PROVED = frozenset(
    {
        "cohere", "cohere2", "ernie4_5", "exaone4", "gemma", "gemma2", "gemma3_text", "glm", "glm4", "gpt2", "gpt_neox",
        "gpt_oss", "granite", "helium", "hunyuan_v1_dense", "llama", "ministral", "mistral", "mixtral", "nemotron",
        "olmo", "olmo2", "olmo3", "opt", "phi", "phi3", "phimoe", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe",
        "seed_oss", "smollm3", "stablelm", "starcoder2",
    }
)  # fmt: skip
"""Model types whose text the tests have compared with `generate`, token by token."""
LEAST_COSINE = 0.98  # of the scores in bfloat16; float32 reaches 1 - 1e-6, a wrong mask or position far less
_KNOWN_LAYERS = {"full_attention", "sliding_attention"}


def refuse(model: Any, why: str) -> SpecError:
    return SpecError(
        f"{type(model).__name__} cannot be run by the continuous engine: {why}; use engine.name: batch with it"
    )


def check_architecture(model: Any) -> None:
    """Raises SpecError for what a short proof would not show."""
    problem = architecture_problem(type(model), model.config)
    if problem is not None:
        raise refuse(model, problem)


def architecture_problem(model_class: Any, config: Any) -> str | None:
    """Why a class cannot be run over packed rows, as far as can be told without weights."""
    problem = configuration_problem(config)
    if problem is not None:
        return problem
    if not model_class._can_set_attn_implementation():
        return "its attention is its own, not Transformers' attention interface"
    return None if takes(model_class, "position_ids") else "it does not take positions"


def configuration_problem(config: Any) -> str | None:
    """The same of a configuration alone."""
    config = config.get_text_config()
    if config.is_encoder_decoder:
        return "it is an encoder-decoder"
    strange = set(getattr(config, "layer_types", None) or ()) - _KNOWN_LAYERS
    return f"it has layers of {', '.join(sorted(strange))}" if strange else None


def observe_layers(model: Any, prompt: Any) -> dict[int, LayerShape]:
    """The shapes that each layer caches, from one forward of token ids [1, tokens]."""
    layers: dict[int, LayerShape] = {}

    def attend(call: Call) -> Any:
        layers[call.layer] = LayerShape(
            call.key.shape[0], call.key.shape[-1], call.value.shape[-1], call.key.dtype, call.window
        )
        return call.query.new_zeros((call.query.shape[1], call.query.shape[0], call.value.shape[-1]))

    with attending(attend):
        model(input_ids=prompt, position_ids=torch.arange(prompt.shape[1], device=prompt.device)[None], use_cache=False)
    config = model.config.get_text_config()
    if len(layers) != config.num_hidden_layers:
        raise refuse(model, f"{len(layers)} of its {config.num_hidden_layers} layers use the attention interface")
    sliding = "sliding_attention" in (getattr(config, "layer_types", None) or ())
    if sliding and not any(layer.window for layer in layers.values()):
        raise refuse(model, "its layers do not say how far they look back")
    return layers


def check_scores(model: Any, wanted: Any, found: Any) -> None:
    """Scores [positions, vocabulary] of the model alone and of the engine. Raises SpecError where they differ."""
    cosine = torch.nn.functional.cosine_similarity(wanted.double(), found.double(), dim=-1).min().item()
    # int8 rounds a row by the columns that stand out in all rows of its step (LLM.int8), so no two steps are equal.
    exact = wanted.dtype == torch.float32 and not getattr(model, "is_loaded_in_8bit", False)
    least = 1 - 1e-4 if exact else LEAST_COSINE
    if not cosine >= least:
        raise refuse(model, f"its scores over packed rows differ from its own (cosine {cosine:.4f})")


def position_limit(model: Any) -> int | None:
    """Most tokens of a sequence, prompt included; None where positions may grow.

    A table of learned positions ends; rotations that change with every longer sequence of a batch would make a text
    depend on its neighbours, so they end where they begin to change.
    """
    config = model.config.get_text_config()
    longest: Any = getattr(config, "max_position_embeddings", None)
    rotation: Any = getattr(config, "rope_parameters", None) or {}
    changes = "dynamic" in str(rotation.get("rope_type")) or (
        rotation.get("rope_type") == "longrope" and long_from(model) is None
    )
    if changes:
        return int(rotation.get("original_max_position_embeddings") or longest)
    if longest is None:
        return None
    words = model.get_input_embeddings()
    tables = [each for each in model.modules() if isinstance(each, torch.nn.Embedding) and each is not words]
    # Some tables have a few places more than the model counts, which their offset takes.
    return int(longest) if any(longest <= each.num_embeddings <= longest + 8 for each in tables) else None


def proof_tokens(num_embeddings: int, count: int) -> list[int]:
    """Token ids all over the vocabulary, the same each time."""
    return [int(token) for token in np.random.default_rng(0).integers(0, num_embeddings, count)]


def takes(model: Any, name: str) -> bool:
    """Whether the model's forward has an argument of this name."""
    return name in inspect.signature(model.forward).parameters
