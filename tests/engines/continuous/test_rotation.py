"""Models whose positions turn otherwise once a text is long, against `generate`, which chooses for a whole batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from transformers import AutoConfig, PreTrainedModel

from hfray.engines.continuous.engine import ContinuousEngine
from hfray.engines.continuous.rotation import long_from
from tests.engines.continuous.support import EOS, PAD, VOCABULARY, item_of, model_of, prompts, tokens_of
from tests.models.support import loaded
from tests.tasks.support import tiny_model

LIMIT, NEW = 40, 24
LENGTHS = (3, 39, 11, 40, 20, 70, 41, 33, 64)  # below the limit, across it while they grow, above it


@cache
def long_model(name: str) -> PreTrainedModel:
    rotation = {
        "rope_type": "longrope", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": LIMIT,
        "short_factor": [1.0] * 8, "long_factor": [1.0 + 0.7 * place for place in range(8)],
        "short_mscale": 1.1, "long_mscale": 1.3,
    }  # fmt: skip
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2} if name == "phimoe" else {}
    config = AutoConfig.for_model(
        name, vocab_size=VOCABULARY, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.3, bos_token_id=2, eos_token_id=EOS, pad_token_id=PAD,
        max_position_embeddings=160, original_max_position_embeddings=LIMIT, rope_parameters=rotation, **experts,
    )  # fmt: skip
    return tiny_model("AutoModelForCausalLM", config)


def alone(name: str, ids: Any) -> list[int]:
    tokens = torch.tensor(ids)[None]
    sequence = long_model(name).generate(
        input_ids=tokens, attention_mask=torch.ones_like(tokens), do_sample=False, eos_token_id=EOS, max_new_tokens=NEW
    )[0]
    return sequence[len(ids) :].tolist()


def texts(name: str, asked: Sequence[Any], **settings: Any) -> list[list[int]]:
    model = long_model(name)
    engine = ContinuousEngine(loaded(model), **{"block_tokens": 4, "cache_bytes": 2**20} | settings)
    try:
        found = tokens_of(engine.run([item_of(ids, max_new_tokens=NEW) for ids in asked]))
    finally:
        engine.close()
    assert engine.cache.num_free == engine.cache.num_blocks
    assert "forward" not in vars(model.model.rotary_emb), "the model is as it was"
    return found


@pytest.mark.parametrize("name", ["phi3", "phimoe"])
@pytest.mark.parametrize(
    "settings", [{}, {"max_step_tokens": 9, "max_running": 5}, {"cache_bytes": 30 * 4 * 2 * 2 * 2 * 16 * 4}], ids=str
)
def test_texts_below_above_and_across_the_limit(name: str, settings: dict[str, Any]) -> None:
    asked = prompts(LENGTHS)
    wanted = [alone(name, ids) for ids in asked]
    assert texts(name, asked, **settings) == wanted
    assert sum(len(ids) <= LIMIT < len(ids) + len(new) - 1 for ids, new in zip(asked, wanted, strict=True)) >= 2
    assert texts(name, asked[::-1], **settings) == wanted[::-1]


def test_equal_beginnings_are_shared_among_short_texts_and_among_long_ones() -> None:
    start = prompts((32,))[0].tolist()
    asked = [[*start, *ids] for ids in prompts((3, 5, 20, 30, 4, 26), seed=3)]
    wanted = [alone("phi3", ids) for ids in asked]
    engine = ContinuousEngine(loaded(long_model("phi3")), block_tokens=4, cache_bytes=2**20)
    try:
        for _ in range(2):
            found = tokens_of(engine.run([item_of(ids, max_new_tokens=NEW) for ids in asked]))
            assert found == wanted
        assert engine.scheduler.shared_tokens > 6 * 32
        assert engine.scheduler.preemptions == 0
    finally:
        engine.close()


def test_who_has_such_a_limit() -> None:
    assert long_from(long_model("phi3")) == LIMIT
    assert long_from(model_of("phi3")) is None
    assert long_from(model_of("gpt2")) is None
