"""The formula, against what torch counts in a forward and a backward pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode
from transformers import BartConfig, BertConfig, GPT2Config, LlamaConfig, Qwen3Config, T5Config

from hfray.training.flops import flops_per_token
from hfray.training.size import AdapterShape, size_of

LENGTH, TARGET_LENGTH = 24, 10
IDS = torch.randint(5, 80, (2, LENGTH), generator=torch.Generator().manual_seed(0))
TARGETS = IDS[:, :TARGET_LENGTH].contiguous()
LLAMA = LlamaConfig(
    vocab_size=128, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, tie_word_embeddings=False,
)  # fmt: skip
WIDE_HEADS = Qwen3Config(
    vocab_size=128, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16,
)  # fmt: skip
GPT2 = GPT2Config(vocab_size=90, n_embd=16, n_layer=2, n_head=2, n_positions=32, bos_token_id=1, eos_token_id=1)
BERT = BertConfig(
    vocab_size=100, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_labels=5
)
BART = BartConfig(
    vocab_size=80, d_model=16, encoder_layers=2, decoder_layers=3, encoder_attention_heads=2,
    decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=32,
)  # fmt: skip
T5 = T5Config(
    vocab_size=80, d_model=16, d_kv=16, d_ff=32, num_layers=2, num_decoder_layers=3, num_heads=4,
    decoder_start_token_id=0, pad_token_id=0,
)  # fmt: skip


def model_of(config: Any, auto_model: str) -> Any:
    return getattr(transformers, auto_model).from_config(config, attn_implementation="eager").train()


def counted(model: Any, labels: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        model(input_ids=IDS, labels=labels).loss.backward()
    return int(counter.get_total_flops())


@pytest.mark.parametrize(
    ("config", "auto_model"),
    [
        (LLAMA, "AutoModelForCausalLM"),
        (WIDE_HEADS, "AutoModelForCausalLM"),
        (GPT2, "AutoModelForCausalLM"),
        (BERT, "AutoModelForMaskedLM"),
    ],
)
def test_a_language_model_is_counted_to_the_last_operation(config: Any, auto_model: str) -> None:
    by_hand = counted(model_of(config, auto_model), IDS)
    assert flops_per_token(size_of(config, auto_model), LENGTH) * IDS.numel() == by_hand


@pytest.mark.parametrize("config", [BART, T5])
def test_an_encoder_decoder_is_counted_to_the_last_operation(config: Any) -> None:
    by_hand = counted(model_of(config, "AutoModelForSeq2SeqLM"), TARGETS)
    size = size_of(config, "AutoModelForSeq2SeqLM")
    per_token = flops_per_token(size, LENGTH, TARGET_LENGTH)
    assert per_token * (IDS.numel() + TARGETS.numel()) == pytest.approx(by_hand, rel=1e-9)


def test_a_classifier_is_counted_but_for_its_pooler() -> None:
    by_hand = counted(model_of(BERT, "AutoModelForSequenceClassification"), torch.tensor([0, 1]))
    pooler_elsewhere = 6 * 16 * 16 * (LENGTH - 1) / LENGTH
    head = 6 * 16 * 5 / LENGTH
    per_token = flops_per_token(size_of(BERT, "AutoModelForSequenceClassification"), LENGTH)
    assert (per_token - pooler_elsewhere + head) * IDS.numel() == pytest.approx(by_hand, rel=1e-9)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], None])
def test_frozen_weights_have_no_gradient_of_their_own(targets: list[str] | None) -> None:
    from peft import LoraConfig, get_peft_model

    model = model_of(LLAMA, "AutoModelForCausalLM")
    model.enable_input_require_grads()  # else what lies below the first adapter has no gradient
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=targets or "all-linear", task_type="CAUSAL_LM"))
    size = size_of(LLAMA, "AutoModelForCausalLM", AdapterShape(4, targets))
    assert flops_per_token(size, LENGTH) * IDS.numel() == pytest.approx(counted(adapted, IDS), rel=1e-9)
