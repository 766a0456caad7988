"""One tiny model of every kind that endpoints have, for tests that ask all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    T5Config,
    ViTConfig,
    ViTImageProcessorPil,
)

from hfray.serving.messages import Card
from hfray.serving.replica import Replica
from tests.models.support import letter_tokenizer, save_decoder, save_model
from tests.serving.office import replica_of
from tests.tasks.support import tiny_model

SIZE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
VISION = {**SIZE, "image_size": 32, "patch_size": 16}
NUM_TOKENS = 16
"""That generating models may write for a text: the fuzz asks thousands of them."""
LIMITS = {"max_new_tokens": 64, "max_total_tokens": 128, "max_chars": 20_000}
PAIRS = ("contradiction", "neutral", "entailment")
ENCODERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "text-classification": ("AutoModelForSequenceClassification", ("cold", "warm", "hot")),
    "token-classification": ("AutoModelForTokenClassification", ("O", "B-PER", "I-PER")),
    "question-answering": ("AutoModelForQuestionAnswering", ()),
    "zero-shot-classification": ("AutoModelForSequenceClassification", PAIRS),
    "fill-mask": ("AutoModelForMaskedLM", ()),
    "feature-extraction": ("AutoModel", ()),
    "sentence-similarity": ("AutoModel", ()),
    "text-ranking": ("AutoModelForSequenceClassification", ("relevant",)),
}


def zoo(folder: Path) -> dict[str, tuple[Replica, Card]]:
    """By task; close each replica."""
    models = {}
    for task, (auto_model, labels) in ENCODERS.items():
        path = save_model(folder / task, auto_model, labels=labels, max_length=128)
        models[task] = replica_of(path, task, limits=LIMITS)
    path = save_decoder(folder / "text-generation")
    models["text-generation"] = replica_of(
        path, {"name": "text-generation", "max_new_tokens": NUM_TOKENS}, limits=LIMITS
    )
    models["perplexity"] = replica_of(path, "perplexity", limits=LIMITS)
    for task, own in (("summarization", {}), ("text2text-generation", {}), ("translation", {"prefix": "say: "})):
        path = _seq2seq(folder / task)
        models[task] = replica_of(path, {"name": task, "max_new_tokens": NUM_TOKENS, **own}, limits=LIMITS)
    models["image-classification"] = replica_of(_vit(folder / "vit"), "image-classification", limits=LIMITS)
    models["zero-shot-image-classification"] = replica_of(
        _clip(folder / "clip"), "zero-shot-image-classification", limits=LIMITS
    )
    return models


def _seq2seq(folder: Path) -> Path:
    tokenizer = letter_tokenizer(128)
    config = T5Config(
        d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, vocab_size=len(tokenizer),
        pad_token_id=0, eos_token_id=3, decoder_start_token_id=0,
    )  # fmt: skip
    tokenizer.eos_token = "[SEP]"
    return _saved(folder, tiny_model("AutoModelForSeq2SeqLM", config), tokenizer)


def _vit(folder: Path) -> Path:
    labels = ("cat", "coffee", "horse")
    names: Any = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    model = tiny_model("AutoModelForImageClassification", ViTConfig(**VISION, **names))
    return _saved(folder, model, ViTImageProcessorPil(size={"height": 32, "width": 32}))


def _clip(folder: Path) -> Path:
    tokenizer = letter_tokenizer(77)
    tokenizer.eos_token = "[SEP]"
    text = {**SIZE, "vocab_size": len(tokenizer), "eos_token_id": 3, "bos_token_id": 2, "pad_token_id": 0}
    config = CLIPConfig(text_config=text, vision_config=VISION, projection_dim=32)
    images = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)
    return _saved(folder, tiny_model("AutoModel", config), tokenizer, images)


def _saved(folder: Path, *parts: Any) -> Path:
    for part in parts:
        part.save_pretrained(folder)
    return folder
