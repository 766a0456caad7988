"""Tiny random models written to a folder as a user would have them: safetensors, config, tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import LlamaConfig, PreTrainedTokenizerFast

from hfray.models.load import LoadedModel, ModelFacts
from hfray.tasks.base import Processor
from tests.tasks.support import bert_config, info_of, tiny_model

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def letter_tokenizer(max_length: int = 64) -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer over ASCII letters and digits; needs no data, so nothing that uses it skips."""
    letters = [chr(code) for code in range(33, 127)]
    words = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    backend = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=max_length,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def save_model(
    folder: Path,
    auto_model: str = "AutoModelForSequenceClassification",
    *,
    labels: Sequence[str] = ("cold", "warm", "hot"),
    max_length: int = 64,
    **changes: Any,
) -> Path:
    """A random BERT of 2 layers with a head, and its tokenizer, in a folder."""
    tokenizer = letter_tokenizer(max_length)
    config = bert_config(labels=labels, max_length=max_length, **changes)
    config.vocab_size = len(tokenizer)
    tiny_model(auto_model, config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


CHAT_TEMPLATE = (
    "{% for message in messages %}[{{ message.role }}]{{ message.content }}[/{{ message.role }}]{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def save_decoder(folder: Path, *, max_length: int = 256, chat_template: str = CHAT_TEMPLATE, **changes: Any) -> Path:
    """A random Llama of 2 layers, its letter tokenizer and a chat template, in a folder; [SEP] ends a text."""
    tokenizer = letter_tokenizer(max_length)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", special_tokens=[("[CLS]", 2)]
    )
    tokenizer.bos_token, tokenizer.eos_token = "[CLS]", "[SEP]"
    tokenizer.chat_template = chat_template
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3, "bos_token_id": 2,
        "eos_token_id": 3, "pad_token_id": 0, "max_position_embeddings": max_length,
    }  # fmt: skip
    tiny_model("AutoModelForCausalLM", LlamaConfig(**shape | changes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def loaded(model: Any, tokenizer: Any = None) -> LoadedModel:
    """A model in memory as an engine takes it."""
    return LoadedModel(
        model=model.eval(),
        dense=None,
        pad_token_id=0,
        device=torch.device("cpu"),
        processor=Processor(tokenizer=tokenizer),
        info=info_of(model),
        facts=ModelFacts("tiny", None, 0, "float32", "none", "cpu", 0, 0),
    )
