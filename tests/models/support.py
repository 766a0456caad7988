"""Tiny random models written to a folder as a user would have them: safetensors, config, tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

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
