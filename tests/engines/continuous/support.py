"""Tiny random models, what they generate alone by Transformers, and engines over copies of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, Gemma2Config, GPT2Config, LlamaConfig, PreTrainedModel, Qwen2Config

from hfray.engines.continuous.engine import ContinuousEngine
from hfray.engines.continuous.proof import PROVED
from hfray.errors import ItemError
from hfray.types import Array, Generated, GenerationParams, Item
from tests.models.support import loaded
from tests.tasks.support import tiny_model

VOCABULARY = 96
EOS, PAD = 1, 0
LENGTHS = (3, 40, 11, 1, 19, 70, 33, 64)
_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3, "bos_token_id": 2,
    "eos_token_id": EOS, "pad_token_id": PAD,
}  # fmt: skip
_WINDOW: dict[str, Any] = {"head_dim": 16, "sliding_window": 12}
_EXPERTS: dict[str, Any] = {"num_experts_per_tok": 2, "moe_intermediate_size": 64, "num_experts": 4}
_CONFIGS: dict[str, Any] = {
    "gpt2": lambda: GPT2Config(vocab_size=VOCABULARY, n_positions=160, n_embd=64, n_layer=2, n_head=4,
                               initializer_range=0.3, bos_token_id=2, eos_token_id=EOS, pad_token_id=PAD),
    "llama": lambda: LlamaConfig(**_SHAPE),
    "qwen2": lambda: Qwen2Config(**_SHAPE),
    "gemma2": lambda: Gemma2Config(**_SHAPE, head_dim=16, sliding_window=12, query_pre_attn_scalar=16),
    "gpt_oss": lambda: AutoConfig.for_model("gpt_oss", **_SHAPE, head_dim=16, sliding_window=10, num_local_experts=2,
                                            num_experts_per_tok=1),
    "opt": lambda: AutoConfig.for_model("opt", **_SHAPE, ffn_dim=128, word_embed_proj_dim=64,
                                        max_position_embeddings=160),
}  # fmt: skip
_CHANGES: dict[str, dict[str, Any]] = {
    **{name: {"head_dim": 16} for name in ("gemma", "glm", "glm4", "helium", "hunyuan_v1_dense", "qwen3", "seed_oss")},
    **{name: {"num_local_experts": 4, "num_experts_per_tok": 2} for name in ("mixtral", "phimoe")},
    **dict.fromkeys(("cohere2", "exaone4", "gemma3_text", "ministral", "olmo3"), _WINDOW),
    "mistral": {"sliding_window": 10},
    "qwen2_moe": {**_EXPERTS, "shared_expert_intermediate_size": 64},
    "qwen3_moe": {**_EXPERTS, "head_dim": 16},
}
MODELS = ("gpt2", "llama", "qwen2", "gemma2")
MORE_MODELS = tuple(sorted(PROVED - set(MODELS)))
"""Heads with their own norms, windows everywhere, attention sinks, offsets, partial rotations, experts."""


def _config_of(name: str) -> Any:
    make = _CONFIGS.get(name)
    return AutoConfig.for_model(name, **{**_SHAPE, **_CHANGES.get(name, {})}) if make is None else make()


@cache
def model_of(name: str) -> PreTrainedModel:
    return tiny_model("AutoModelForCausalLM", _config_of(name))


def prompts(lengths: Sequence[int] = LENGTHS, seed: int = 7) -> list[Array]:
    generator = np.random.default_rng(seed)
    return [generator.integers(3, VOCABULARY, length) for length in lengths]


def params_of(**settings: Any) -> GenerationParams:
    return GenerationParams(**{"max_new_tokens": 24, "eos_token_ids": (EOS,)} | settings)


def item_of(ids: Any, *, salt: str = "", **settings: Any) -> Item:
    return Item("causal", {"input_ids": np.asarray(ids)}, Generated(), params_of(**settings), cache_salt=salt)


def alone(name: str, ids: Any, **settings: Any) -> list[int]:
    """New tokens by `generate`, greedy, one prompt without padding."""
    return list(
        _alone(name, tuple(np.asarray(ids).tolist()), tuple(sorted({"max_new_tokens": 24, **settings}.items())))
    )


@cache
def _alone(name: str, ids: tuple[int, ...], settings: tuple[tuple[str, Any], ...]) -> list[int]:
    tokens = torch.tensor([ids])
    sequence = model_of(name).generate(
        input_ids=tokens, attention_mask=torch.ones_like(tokens), do_sample=False, eos_token_id=EOS, **dict(settings)
    )[0]
    return sequence[len(ids) :].tolist()  # type: ignore[no-any-return]


@contextmanager
def engine_of(name: str, **settings: Any) -> Iterator[ContinuousEngine]:
    """An engine of small blocks; at the end every block must be free."""
    engine = ContinuousEngine(
        loaded(copy.deepcopy(model_of(name))), **{"block_tokens": 4, "cache_bytes": 2**20} | settings
    )
    try:
        yield engine
    finally:
        engine.close()
    assert engine.cache.num_free == engine.cache.num_blocks


def bytes_of(name: str, num_blocks: int) -> int:
    """A cache of that many blocks of 4 positions."""
    return num_blocks * 4 * 2 * 2 * (4 if name == "gpt2" else 2) * 16 * 4


def tokens_of(outputs: Sequence[Any]) -> list[list[int]]:
    for output in outputs:
        if isinstance(output, ItemError):
            raise output
    return [output["tokens"].tolist() for output in outputs]
