"""Counts of parameters: those of the loaded model, and of the adapter that PEFT makes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from transformers import BartConfig, BertConfig, GPT2Config, LlamaConfig

from hfray.errors import SpecError
from hfray.training.size import AdapterShape, size_of

LLAMA = LlamaConfig(
    vocab_size=128, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, tie_word_embeddings=False,
)  # fmt: skip
BERT = BertConfig(
    vocab_size=100, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_labels=5
)
GPT2 = GPT2Config(vocab_size=90, n_embd=16, n_layer=2, n_head=2, n_positions=32)
BART = BartConfig(
    vocab_size=80, d_model=16, encoder_layers=2, decoder_layers=3, encoder_attention_heads=2,
    decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=32,
)  # fmt: skip
MODELS = [
    (LLAMA, "AutoModelForCausalLM", 3, 32, 128),
    (BERT, "AutoModelForSequenceClassification", 2, 16, 0),
    (BERT, "AutoModelForMaskedLM", 2, 16, 100),
    (GPT2, "AutoModelForCausalLM", 2, 16, 90),
    (BART, "AutoModelForSeq2SeqLM", 5, 16, 80),
]


@pytest.mark.parametrize(("config", "auto_model", "layers", "hidden", "vocab"), MODELS)
def test_counts_are_those_of_the_model(config: Any, auto_model: str, layers: int, hidden: int, vocab: int) -> None:
    model = getattr(transformers, auto_model).from_config(config)
    size = size_of(config, auto_model)
    assert size.parameters == size.trainable == sum(each.numel() for each in model.parameters())
    assert (size.num_layers, size.hidden_size, size.vocab_size, size.added) == (layers, hidden, vocab, 0)
    assert 0 < size.largest_module < size.parameters
    assert 0 < size.linear < size.parameters


def test_what_an_mlp_keeps() -> None:
    assert size_of(LLAMA, "AutoModelForCausalLM").mlp_elements == 4 * 64
    assert size_of(BERT, "AutoModelForMaskedLM").mlp_elements == 2 * 32
    assert size_of(GPT2, "AutoModelForCausalLM").mlp_elements == 2 * 4 * 16


def test_the_head_is_not_among_the_linear_layers() -> None:
    inner = 32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 64
    assert size_of(LLAMA, "AutoModelForCausalLM").linear == 3 * inner
    with_pooler = 2 * (4 * 16 * 16 + 2 * 16 * 32) + 16 * 16
    assert size_of(BERT, "AutoModelForSequenceClassification").linear == with_pooler


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize(
    ("config", "auto_model", "targets", "trained", "task_type"),
    [
        (LLAMA, "AutoModelForCausalLM", ["q_proj", "v_proj"], (), "CAUSAL_LM"),
        (LLAMA, "AutoModelForCausalLM", None, (), "CAUSAL_LM"),
        (GPT2, "AutoModelForCausalLM", ["c_attn"], (), "CAUSAL_LM"),
        (BERT, "AutoModelForSequenceClassification", ["query", "value"], ("classifier",), "SEQ_CLS"),
    ],
)
def test_an_adapter_has_as_many_as_in_peft(
    config: Any, auto_model: str, targets: list[str] | None, trained: tuple[str, ...], task_type: str, dora: bool
) -> None:
    from peft import LoraConfig, get_peft_model

    model = getattr(transformers, auto_model).from_config(config)
    adapted = get_peft_model(
        model, LoraConfig(r=4, target_modules=targets or "all-linear", task_type=task_type, use_dora=dora)
    )
    expected = sum(each.numel() for each in adapted.parameters() if each.requires_grad)
    size = size_of(config, auto_model, AdapterShape(4, targets, trained, dora))
    assert size.trainable == size.added == expected
    assert size.parameters + size.added == sum(each.numel() for each in adapted.parameters())


def test_nothing_is_allocated() -> None:
    huge = LlamaConfig(vocab_size=128_000, hidden_size=8192, intermediate_size=28672, num_hidden_layers=2)
    assert size_of(huge, "AutoModelForCausalLM").parameters > 3e9
    assert torch.get_default_device().type == "cpu"


def test_a_model_that_there_is_not() -> None:
    with pytest.raises(SpecError, match="cannot build AutoModelForQuestionAnswering of it"):
        size_of(transformers.CLIPConfig(), "AutoModelForQuestionAnswering")
