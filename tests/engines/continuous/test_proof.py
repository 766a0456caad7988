"""What is refused before a text could come out wrong: by the configuration, by the layers seen, by the scores."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, BloomForCausalLM

from hfray.engines.continuous.attention import NAME
from hfray.engines.continuous.proof import (
    architecture_problem,
    check_scores,
    configuration_problem,
    observe_layers,
    position_limit,
    proof_tokens,
)
from hfray.errors import SpecError
from tests.engines.continuous.support import model_of

LLAMA: Any = type(model_of("llama"))


@pytest.mark.parametrize(
    ("model_type", "problem"),
    [
        ("llama", None),
        ("gemma3_text", None),
        ("t5", "it is an encoder-decoder"),
        ("mamba", "it has layers of linear_attention"),
        ("qwen3_next", "it has layers of linear_attention"),
    ],
)
def test_a_configuration_tells(model_type: str, problem: str | None) -> None:
    assert configuration_problem(AutoConfig.for_model(model_type)) == problem


def test_a_class_tells() -> None:
    llama = model_of("llama").config
    assert architecture_problem(LLAMA, llama) is None
    problem = architecture_problem(BloomForCausalLM, AutoConfig.for_model("bloom"))
    assert problem == "its attention is its own, not Transformers' attention interface"

    class Placeless(LLAMA):  # type: ignore[misc]
        def forward(self, input_ids: Any) -> Any:
            return None

    assert architecture_problem(Placeless, llama) == "it does not take positions"


def packed(name: str, **changes: Any) -> Any:
    model: Any = copy.deepcopy(model_of(name))
    model.set_attn_implementation(NAME)
    for key, value in changes.items():
        setattr(model.config, key, value)
    return model


def test_layers_are_seen_with_their_shapes() -> None:
    prompt = torch.tensor([[5, 6, 7]])
    layers = observe_layers(packed("llama"), prompt)
    assert {(each.num_kv_heads, each.key_dim, each.value_dim, each.window) for each in layers.values()} == {
        (2, 16, 16, None)
    }
    assert sorted({each.window or 0 for each in observe_layers(packed("gemma2"), prompt).values()}) == [0, 12]


def test_layers_that_do_not_call_the_interface_are_missed() -> None:
    with pytest.raises(SpecError, match="2 of its 3 layers use the attention interface; use engine"):
        observe_layers(packed("llama", num_hidden_layers=3), torch.tensor([[5, 6]]))


def test_layers_must_say_how_far_they_look_back() -> None:
    with pytest.raises(SpecError, match="do not say how far they look back"):
        observe_layers(packed("llama", layer_types=["sliding_attention"] * 2), torch.tensor([[5, 6]]))


@pytest.mark.parametrize(
    ("dtype", "noise", "eight_bits", "fine"),
    [
        (torch.float32, 1e-4, False, True),
        (torch.float32, 0.1, False, False),
        (torch.float32, 0.1, True, True),
        (torch.bfloat16, 0.1, False, True),
        (torch.bfloat16, 0.5, False, False),
        (torch.float32, float("nan"), False, False),
    ],
)
def test_scores_must_agree_as_closely_as_their_type_can(dtype: Any, noise: float, eight_bits: bool, fine: bool) -> None:
    dice = torch.Generator().manual_seed(0)
    wanted = torch.randn(4, 1000, generator=dice)
    found = wanted + noise * torch.randn(4, 1000, generator=dice)
    model = SimpleNamespace(is_loaded_in_8bit=eight_bits)
    if fine:
        check_scores(model, wanted.to(dtype), found.to(dtype))
        return
    with pytest.raises(SpecError, match="scores over packed rows differ from its own"):
        check_scores(model, wanted.to(dtype), found.to(dtype))


@pytest.mark.parametrize(
    ("name", "rotation", "limit"),
    [
        ("gpt2", None, 160),
        ("opt", None, 160),  # its table has two places more
        ("llama", None, None),
        ("llama", {"rope_type": "linear", "factor": 2.0}, None),
        ("llama", {"rope_type": "dynamic", "factor": 2.0}, 2048),
        ("llama", {"rope_type": "longrope", "original_max_position_embeddings": 512}, 512),
    ],
)
def test_texts_end_where_positions_do(name: str, rotation: Any, limit: int | None) -> None:
    model = copy.deepcopy(model_of(name))
    if rotation is not None:
        model.config.rope_parameters = rotation
    assert position_limit(model) == limit


def test_a_table_of_places_of_a_model_with_other_names() -> None:
    config = AutoConfig.for_model("gpt2", n_positions=40, vocab_size=40, n_embd=8, n_layer=1, n_head=1)
    assert position_limit(AutoModelForCausalLM.from_config(config)) == 40


def test_the_proof_is_the_same_each_time() -> None:
    tokens = proof_tokens(96, 200)
    assert tokens == proof_tokens(96, 200)
    assert 0 <= min(tokens) < 10
    assert 85 < max(tokens) < 96
