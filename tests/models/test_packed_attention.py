"""Which architectures keep packed documents apart, and that what is passed then gives each document its own answers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from hfray.errors import SpecError
from hfray.models.packed_attention import (
    SEPARATIONS,
    Separation,
    packed_inputs,
    packing_is_safe,
    prove_packing,
    separation_of,
    tiny_config,
)

torch.set_num_threads(1)

SEPARATED: dict[str, Separation] = {
    "llama": "position_ids",
    "gpt2": "position_ids",
    "mistral": "position_ids",
    "qwen2": "position_ids",
    "gpt_neox": "position_ids",
    "phi3": "position_ids",
    "gemma2": "position_ids",
    "mixtral": "position_ids",
    "opt": "block_mask",
    "falcon": "block_mask",
    "gpt_oss": "block_mask",
}
REFUSED = {"bloom": {}, "falcon": {"alibi": True}, "mamba": {}}
LENGTHS = (4, 9, 1, 6)


def tiny(model_type: str) -> Any:
    torch.manual_seed(1)
    model: Any = AutoModelForCausalLM.from_config(tiny_config(AutoConfig.for_model(model_type)), dtype=torch.float32)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(std=0.2)
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("attention", [None, "eager"])
@pytest.mark.parametrize("model_type", SEPARATED)
def test_an_architecture_is_proved_without_weights(model_type: str, attention: str | None) -> None:
    assert prove_packing(AutoConfig.for_model(model_type), attention=attention) == SEPARATED[model_type]


@pytest.mark.slow
@pytest.mark.parametrize("model_type", REFUSED)
def test_an_architecture_that_cannot_be_kept_apart_is_refused(model_type: str) -> None:
    with pytest.raises(SpecError, match=r"packed documents see each other in .* mode: plain"):
        prove_packing(AutoConfig.for_model(model_type, **REFUSED[model_type]))


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("model_type", SEPARATED)
def test_logits_and_loss_of_each_document_are_those_that_it_has_alone(model_type: str) -> None:
    model = tiny(model_type)
    ids = torch.randint(3, 128, (1, sum(LENGTHS)))
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    labels = ids.masked_fill(positions == 0, -100)
    packed = model(input_ids=ids, labels=labels, **packed_inputs(positions, SEPARATED[model_type], torch.float32))
    losses, counted = 0.0, 0
    for document, logits in zip(ids[0].split(LENGTHS), packed.logits[0].split(LENGTHS), strict=True):
        alone = model(input_ids=document[None], labels=document[None], use_cache=False)
        torch.testing.assert_close(logits, alone.logits[0], atol=5e-5, rtol=1e-5)
        if len(document) > 1:
            losses += float(alone.loss) * (len(document) - 1)
            counted += len(document) - 1
    assert float(packed.loss) == pytest.approx(losses / counted, rel=1e-5)


def test_a_leak_is_seen() -> None:
    model = tiny("opt")
    assert [packing_is_safe(model, each) for each in SEPARATIONS] == [False, True]
    assert separation_of(model) == "block_mask"


def test_a_model_that_sees_nothing_before_a_token_proves_nothing() -> None:
    model = tiny("gpt2")
    assert packing_is_safe(model, "position_ids")
    for block in model.transformer.h:
        torch.nn.init.zeros_(block.attn.c_proj.weight)
    assert not packing_is_safe(model, "position_ids")


def test_a_proof_leaves_no_trace() -> None:
    model = tiny("gpt2").train()
    before = torch.random.get_rng_state()
    assert packing_is_safe(model, "position_ids")  # dropout, left on, would make documents differ
    prove_packing(model.config)
    assert model.training
    assert model.config.n_layer == 2
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_configuration_is_not_changed_and_another_size_is_no_matter() -> None:
    config = AutoConfig.for_model("llama", num_attention_heads=32, num_key_value_heads=8, vocab_size=50_000)
    before = config.to_dict()
    assert prove_packing(config) == "position_ids"
    assert config.to_dict() == before
    small = tiny_config(config)
    assert (small.num_hidden_layers, small.num_attention_heads, small.num_key_value_heads) == (2, 4, 2)


def test_layers_of_each_kind_are_proved() -> None:
    assert set(tiny_config(AutoConfig.for_model("gemma2")).layer_types) == {"sliding_attention", "full_attention"}


def test_what_cannot_be_made_small_is_refused() -> None:
    class Unknown:
        model_type = "unknown"

        def get_text_config(self, decoder: bool) -> Any:
            raise ValueError("no text here")

    with pytest.raises(SpecError, match=r"no small model of the architecture unknown .*no text here"):
        prove_packing(Unknown())


def test_a_block_mask_shows_a_token_its_own_document_up_to_itself() -> None:
    inputs = packed_inputs(torch.tensor([[0, 1, 0, 1, 2], [0, 0, 1, 0, 1]]), "block_mask", torch.float32)
    seen = (inputs["attention_mask"][:, 0] == 0).int().tolist()
    assert seen[0] == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 1, 1, 1]]
    assert seen[1] == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 1, 1]]
    assert "attention_mask" not in packed_inputs(torch.tensor([[0, 1]]), "position_ids", torch.float32)
