"""Of how many items a loss is a mean, told without the model's help and compared with the model's own mean."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForTokenClassification, T5Config

from hfray.training.items import num_items, shifts_labels
from tests.tasks.support import bert_config, tiny_model

LABELS = torch.tensor([[-100, 4, 5, -100], [6, 7, 8, 9]])
IDS = torch.tensor([[1, 4, 5, 0], [6, 7, 8, 9]])


def causal() -> Any:
    from transformers import GPT2Config

    return AutoModelForCausalLM.from_config(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=16)).eval()


def per_token_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")


def test_a_causal_model_leaves_the_first_label_out() -> None:
    model = causal()
    assert shifts_labels(model)
    items = num_items({"labels": LABELS, "input_ids": IDS}, shifted=True)
    assert items == 5
    output = model(input_ids=IDS, labels=LABELS)
    by_hand = per_token_losses(output.logits[:, :-1], LABELS[:, 1:]).sum() / items
    torch.testing.assert_close(output.loss, by_hand)


def test_a_tagger_counts_every_label() -> None:
    model = tiny_model("AutoModelForTokenClassification", bert_config(labels=[str(each) for each in range(10)])).eval()
    assert isinstance(model, type(AutoModelForTokenClassification.from_config(model.config)))
    assert not shifts_labels(model)
    items = num_items({"labels": LABELS, "input_ids": IDS}, shifted=False)
    assert items == 6
    output = model(input_ids=IDS, labels=LABELS)
    torch.testing.assert_close(output.loss, per_token_losses(output.logits, LABELS).sum() / items)


def test_an_encoder_decoder_counts_every_target() -> None:
    config = T5Config(d_model=8, d_ff=8, d_kv=4, num_layers=1, num_heads=2, vocab_size=16, decoder_start_token_id=0)
    assert not shifts_labels(AutoModelForSeq2SeqLM.from_config(config))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT asks by the old name
def test_an_adapter_is_looked_through() -> None:
    from peft import LoraConfig, get_peft_model

    assert shifts_labels(get_peft_model(causal(), LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)))


@pytest.mark.parametrize(
    "batch",
    [
        {"input_ids": IDS, "labels": torch.tensor([1, 0])},
        {"input_ids": IDS, "labels": torch.tensor([[0.0, 1.0], [1.0, 1.0]])},
        {"input_ids": IDS, "start_positions": torch.tensor([1, 2])},
    ],
)
def test_other_heads_count_rows(batch: dict[str, torch.Tensor]) -> None:
    assert num_items(batch, shifted=False) == 2
